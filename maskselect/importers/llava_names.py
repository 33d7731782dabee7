"""Names of LLaVA's tensors in its authors' files (haotian-liu/LLaVA: liuhaotian/llava-v1.5-13b) and in transformers.

In transformers the Llama is one level deeper, the vision tower two or three levels higher, and the projector's layers 0
and 2 are linear_1 and linear_2. LLM-Seg's release has the same foreign names below a prefix of peft, so its templates
are reused.
"""

from maskselect.backends.name_map import NameMap
from maskselect.importers.llm_seg_names import LLAVA, LLAVA_TEMPLATES

EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
"""Foreign names of the tensors with a row for every token."""

TOWER = "model.vision_tower."
"""Prefix of the vision tower's names in both."""

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
# The tower has one level less in files of transformers 5 or later.
_FLAT_TOWER = tuple(
    (foreign.replace("vision_model.", ""), own) for foreign, own in _SHARED if foreign.startswith(TOWER)
)

DROPPED = (
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$", "a computed table"),
    (r"model\.vision_tower\.vision_tower\.(vision_model\.)?embeddings\.position_ids$", "a computed table"),
)

ORIGINAL = NameMap((*_SHARED, *_PROJECTOR, *_FLAT_TOWER), DROPPED)
