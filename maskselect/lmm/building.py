"""A LLaVA of transformers, read from a folder or the hub."""

from pathlib import Path

from transformers import LlavaForConditionalGeneration, PreTrainedConfig, PreTrainedTokenizerBase

from maskselect.backends.weightless import reads_weights
from maskselect.lmm.llava import EXAMPLE
from maskselect.lmm.loading import load_language_model


def load_llava(
    model: str, dtype: str | None = None, quantize: str | None = None
) -> tuple[PreTrainedTokenizerBase, LlavaForConditionalGeneration]:
    """Tokenizer and model by hub id or folder; the weights in `dtype`, or as the files have them.

    quantize: "nf4" for a language model in 4 bits.
    Raises FileNotFoundError when they are not there; ValueError when they are in LLaVA's original naming, or some are
    missing, either of which transformers would take for a wish for random ones; or without the package that quantises.
    """
    if reads_weights():
        _refuse_original(model)
    kept = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    return load_language_model(model, "LLaVA", EXAMPLE, LlavaForConditionalGeneration, dtype, quantize, kept)


def _refuse_original(model: str) -> None:
    """Raises ValueError for a folder or hub id whose config is that of LLaVA's authors, not of transformers."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except OSError:
        return  # not there, which is told when it is loaded
    original = config.get("model_type") == "llava_llama" or any(name.startswith("mm_") for name in config)
    if original and "vision_config" not in config:
        local = Path(model).is_dir()
        fetching = "" if local else f"hf download {model} --local-dir SRC; "
        raise ValueError(
            f"LLaVA {model!r} is in the naming of its authors, which transformers takes for random weights; make a "
            f"folder of it that can be read with: {fetching}maskselect import llava {model if local else 'SRC'} DST"
        )
