"""`KeptMaps`: the maps of a frozen encoder, computed once for each picture and kept on disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskselect.encoders.frozen import FrozenEncoder
from maskselect.ops.atomic import atomic_file
from maskselect.structures.features import finest_first


class KeptMaps:
    """Maps of pictures, float16 on disk, named by a digest of the pixels.

    Args:
        encoder: frozen.
        folder: gets a folder named by the key of the encoder; None keeps nothing.
    """

    def __init__(self, encoder: FrozenEncoder, folder: Path | None) -> None:
        self.encoder = encoder
        self.folder = None if folder is None else folder / f"maps-{encoder.cache_key()}"

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, 3, S, S) uint8 to maps (B, C_i, h_i, w_i) float32, finest first."""
        if self.folder is None:
            return self._computed(images)
        files = [self.folder / f"{_digest(image)}.safetensors" for image in images]
        rows = [_read(file) for file in files]
        new = [number for number, row in enumerate(rows) if row is None]
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = [one.half().cpu() for one in self._computed(images[new])]
            for place, number in enumerate(new):
                rows[number] = [one[place].clone(memory_format=torch.contiguous_format) for one in found]
                with atomic_file(files[number]) as part:
                    save_file({str(level): one for level, one in enumerate(rows[number] or ())}, part)
        columns = zip(*(row for row in rows if row is not None), strict=True)
        return [torch.stack(column).to(images.device, torch.float32) for column in columns]

    def _computed(self, images: Tensor) -> list[Tensor]:
        return finest_first(self.encoder.encode(images.float() / 255))


def _digest(image: Tensor) -> str:
    return hashlib.blake2b(image.cpu().contiguous().numpy().data, digest_size=16).hexdigest()


def _read(file: Path) -> Sequence[Tensor] | None:
    """The maps of a file, None if it does not exist or is damaged."""
    try:
        held = load_file(file)
    except (FileNotFoundError, SafetensorError, OSError):
        return None
    return [held[str(level)] for level in range(len(held))]
