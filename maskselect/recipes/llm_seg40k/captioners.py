"""Captions of whole images for recipes: by a RAS of stage 1, or by a published LLaVA through transformers."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from maskselect.backends import checkpoints
from maskselect.backends.config_tree import arguments_of
from maskselect.backends.devices import pick_device
from maskselect.structures.masks import MaskSet
from maskselect.systems.loading import load_system
from maskselect.systems.ras import RAS


class Captioner(Protocol):
    """Describes images. It must be picklable, and load its model at first use.

    Attributes:
        name: identifies the model and everything else that its captions depend on; builds are compared by it.
    """

    name: str

    def caption(self, image: np.ndarray) -> str:
        """A caption of an image (H, W, 3) uint8; it may be empty."""
        ...


class RasCaptioner:
    """A RAS after its first stage, which describes images from their mask tokens alone (RAS, section 3.3).

    Args:
        checkpoint: name or path. The shipped "captioner" is compact and knows generated scenes; a RAS of stage 2 is
            refused, because training on masks made it forget its sentences.
        device: auto, cpu or cuda.
        max_new_tokens: longest caption.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged or not of stage 1.
    """

    def __init__(self, checkpoint: str = "captioner", device: str = "auto", max_new_tokens: int = 64) -> None:
        card = checkpoints.read_card(checkpoint)
        stage = arguments_of(card["config"]).get("stage")
        if card["system"] != "ras" or stage != 1:
            actual = card["system"] if card["system"] != "ras" else f"ras, stage {stage}"
            raise ValueError(f"checkpoint {checkpoint} is {actual}; expected a ras of stage 1, such as captioner")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.checkpoint, self.device, self.max_new_tokens = checkpoint, device, max_new_tokens
        digest = hashlib.sha256(checkpoints.find_checkpoint(checkpoint).read_bytes()).hexdigest()[:12]
        self.name = f"ras {digest} max_new_tokens={max_new_tokens}"
        self._loaded: RAS | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    @torch.inference_mode()
    def caption(self, image: np.ndarray) -> str:
        """A greedy caption of an image (H, W, 3) uint8."""
        system = self._load()
        candidates = system.proposer.propose(image)
        if len(candidates) == 0:  # a plain image: one mask covers it
            candidates = MaskSet(torch.ones(1, *image.shape[:2], dtype=torch.bool), torch.ones(1), "whole")
        return system.caption(system.pool_features(system.encode(image), candidates), self.max_new_tokens)

    def _load(self) -> RAS:
        if self._loaded is None:
            system = load_system(self.checkpoint, pick_device(self.device))[0]
            if not isinstance(system, RAS):
                raise ValueError(f"checkpoint {self.checkpoint} is of system {system.name!r}; expected 'ras'")
            self._loaded = system.eval()
        return self._loaded


class TransformersCaptioner:
    """A published LLaVA (https://huggingface.co/llava-hf), greedy, loaded at the first image.

    LLM-Seg40K was made with LLaVA-1.5 13B.

    Args:
        name: hub id or folder.
        device: auto, cpu or cuda.
        question: asked about each image.
        max_new_tokens: longest caption.
    """

    def __init__(
        self,
        name: str = "llava-hf/llava-1.5-13b-hf",
        device: str = "auto",
        question: str = "Describe what is in this picture, what is going on there, and what it is like.",
        max_new_tokens: int = 256,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.model_name, self.device = name, device
        self.question, self.max_new_tokens = question, max_new_tokens
        self.name = f"{name} {question!r} max_new_tokens={max_new_tokens}"
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    @torch.inference_mode()
    def caption(self, image: np.ndarray) -> str:
        """A caption of an image (H, W, 3) uint8.

        Raises:
            FileNotFoundError: the model cannot be loaded.
        """
        processor, model = self._load()
        # LLaVA-1.5's training format; the chat templates of its repositories are newer and equal.
        inputs = processor(images=image, text=f"USER: <image>\n{self.question} ASSISTANT:", return_tensors="pt")
        inputs = inputs.to(model.device, model.dtype)  # integers keep their dtype
        out = model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        return str(processor.tokenizer.decode(new, skip_special_tokens=True)).strip()

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            try:
                processor = AutoProcessor.from_pretrained(self.model_name)
                model: Any = LlavaForConditionalGeneration.from_pretrained(self.model_name, dtype="auto")
            except OSError as error:
                raise FileNotFoundError(
                    f"LLaVA {self.model_name!r} could not be loaded; expected a folder or a hub id such as "
                    f"'llava-hf/llava-1.5-13b-hf' (get it with: hf download {self.model_name})"
                ) from error
            self._loaded = processor, model.to(pick_device(self.device)).eval()
        return self._loaded


def captioner_named(name: str, device: str = "auto") -> Captioner:
    """A checkpoint of this project by name or path, else a LLaVA of transformers by folder or hub id."""
    try:
        checkpoints.find_checkpoint(name)
    except FileNotFoundError:
        if name == Path(name).name or Path(name).suffix == ".safetensors":
            raise
        return TransformersCaptioner(name, device)
    return RasCaptioner(name, device)
