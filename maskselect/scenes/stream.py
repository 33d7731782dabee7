"""`SceneDataset`: scenes as a torch dataset, drawn when asked for, kept on disk when wished."""

import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from maskselect.ops.masks import pad_to_square
from maskselect.scenes.layout import build_scene, scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.spec import Scene

DRAWN_SIDE = 256
"""Longer side, in pixels, at which scenes are drawn and cached, whatever size is asked for."""

_DRAWING = (
    "backgrounds", "board", "figures", "finish", "layout", "materials", "palette", "render", "shapes", "spec",
    "strokes", "things",
)  # fmt: skip
_ODD_SIZES = ((192, 256), (256, 192))


def drawing_hash() -> str:
    """Eight hex digits over the source of all that decides how a scene looks. A cache is valid for one of them."""
    folder = Path(__file__).parent
    files = [folder / f"{name}.py" for name in _DRAWING]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()[:8]


class SceneDataset(Dataset[dict[str, Any]]):
    """Map-style dataset of scenes.

    An item is a dict of image, (3, S, S) uint8 RGB; index, (S, S) uint8 with k + 1 where object k is visible and 0
    elsewhere; size, (2,) int64, height and width of the picture inside its centred square padding (zeros); and
    scene_id, str.

    split, seed, count: which scenes; `scene_ids` gives their names.
    size: S. Scenes are drawn at 256 px and resized, so what a model sees is what it gets from a 256 px file.
    augment: random brightness, contrast, colour cast, blur and noise, anew at each reading. Never a flip: "left" would
        change its meaning.
    cache_dir: folder for drawn scenes (262 KB each). Several processes may fill it at once, and an interrupted run goes
        on where it stopped. Keyed by split, seed and the drawing code.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 10_000,
        size: int = DRAWN_SIDE,
        augment: bool = False,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.ids = list(scene_ids(split, seed, count))
        self.size = size
        self.augment = augment
        self._cache = None
        if cache_dir is not None:
            self._cache = _Cache(Path(cache_dir) / f"{split}-{seed}-{drawing_hash()}", count)

    @staticmethod
    def image_size_of(scene_id: str) -> tuple[int, int]:
        """(H, W) at which a scene is drawn: a quarter of them are not square, decided by the id alone."""
        number = zlib.crc32(scene_id.encode())
        return _ODD_SIZES[number // 8 % 2] if number % 4 == 0 else (DRAWN_SIDE, DRAWN_SIDE)

    @staticmethod
    def scene_of(scene_id: str) -> Scene:
        """The scene of an id at this dataset's size for it."""
        return build_scene(scene_id, SceneDataset.image_size_of(scene_id))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: int) -> dict[str, Any]:
        scene_id = self.ids[item]
        image, index = self._drawn(item)
        if self.augment:
            image = _augment(image, np.random.default_rng(int(torch.randint(2**31, ()))))
        size = self.image_size_of(scene_id)
        picture, labels = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(index)
        if self.size != DRAWN_SIDE:
            picture, labels = _resized(picture, labels, self.size)
            size = (round(size[0] * self.size / DRAWN_SIDE), round(size[1] * self.size / DRAWN_SIDE))
        return {"image": picture.contiguous(), "index": labels, "size": torch.tensor(size), "scene_id": scene_id}

    def _drawn(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Padded picture (256, 256, 3) and index (256, 256), both uint8 and free to be changed."""
        found = self._cache.read(item) if self._cache else None
        if found is not None:
            return found
        drawing = render(self.scene_of(self.ids[item]))
        image = pad_to_square(torch.from_numpy(drawing.image).permute(2, 0, 1)).permute(1, 2, 0).contiguous().numpy()
        index = pad_to_square(torch.from_numpy(drawing.index)).contiguous().numpy()
        if self._cache:
            self._cache.write(item, image, index)
        return image, index


class _Cache:
    """Two arrays and one flag a scene in plain files.

    The flag is set last, and all who write a scene write the same bytes, so no lock is needed.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.shape = {"image": (DRAWN_SIDE, DRAWN_SIDE, 3), "index": (DRAWN_SIDE, DRAWN_SIDE), "done": ()}
        self.arrays: dict[str, np.ndarray] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "arrays": None}  # each process maps the files itself

    def _open(self) -> dict[str, np.ndarray]:
        if self.arrays is None:
            self.arrays, whole = {}, self.count
            for name, shape in self.shape.items():
                path, each = self.folder / f"{name}.u8", int(np.prod(shape))
                with open(path, "ab") as file:  # holes cost no disk; never shortened, so counts may differ
                    size = os.fstat(file.fileno()).st_size
                    whole = min(whole, size // each)
                    if size < self.count * each:
                        file.truncate(self.count * each)
                self.arrays[name] = np.memmap(path, np.uint8, "r+", shape=(self.count, *shape))
            self.arrays["done"][whole:] = 0  # the flag may be there of a picture that was cut off
        return self.arrays

    def read(self, item: int) -> tuple[np.ndarray, np.ndarray] | None:
        arrays = self._open()
        return (np.array(arrays["image"][item]), np.array(arrays["index"][item])) if arrays["done"][item] else None

    def write(self, item: int, image: np.ndarray, index: np.ndarray) -> None:
        arrays = self._open()
        arrays["image"][item], arrays["index"][item] = image, index
        arrays["done"][item] = 1


def _resized(image: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(3, S, S) and (S, S) uint8 to another side: antialiased bilinear and nearest."""
    picture = F.interpolate(image[None].float(), size=(size, size), mode="bilinear", antialias=True)[0]
    labels = F.interpolate(index[None, None], size=(size, size), mode="nearest-exact")[0, 0]
    return picture.round().clamp(0, 255).to(torch.uint8), labels


def _augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photometric changes to (H, W, 3) uint8."""
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)
    shift = rng.uniform(-30, 30) + rng.uniform(-8, 8, 3)
    table = (np.arange(256)[:, None] - 128) * gain + 128 + shift
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.2)))
    if rng.random() < 0.25:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 10))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
