"""Names of LLaVA as its authors store it (haotian-liu/LLaVA: liuhaotian/llava-v1.5-13b), and in transformers.

Four renamings: the Llama moves one level down, the vision tower loses two or three levels, and the projector's layers 0
and 2 get names. LLM-Seg's release has the same names behind those of peft, so its templates are taken.
"""

from maskselect.backends.name_map import NameMap
from maskselect.importers.llm_seg_names import LLAVA, LLAVA_TEMPLATES

EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
"""Foreign names of what has a row for every token."""

TOWER = "model.vision_tower."
"""What the vision tower's names begin with, in both."""

_PEFT = "base_model.model."
_SHARED = tuple(
    (foreign.removeprefix(_PEFT), own.removeprefix(LLAVA))
    for foreign, own in LLAVA_TEMPLATES
    if ".base_layer." not in foreign and "mm_projector" not in foreign
)
_PROJECTOR = tuple(
    (f"model.mm_projector.{number}.{{p}}", f"model.multi_modal_projector.linear_{place}.{{p}}")
    for number, place in ((0, 1), (2, 2))
)
# Written by transformers 5 or later, the tower has one level less.
_FLAT_TOWER = tuple(
    (foreign.replace("vision_model.", ""), own) for foreign, own in _SHARED if foreign.startswith(TOWER)
)

DROPPED = (
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$", "a table, which is computed"),
    (r"model\.vision_tower\.vision_tower\.(vision_model\.)?embeddings\.position_ids$", "a table, which is computed"),
)

ORIGINAL = NameMap((*_SHARED, *_PROJECTOR, *_FLAT_TOWER), DROPPED)
