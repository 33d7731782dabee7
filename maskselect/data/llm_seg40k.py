"""LLM-Seg40K (LLM-Seg, arXiv 2404.08767; https://github.com/wangjunchi/LLMSeg): about 11,000 / 1,000 / 2,000 images.

On disk: `{train,validation,test}.json`, which maps an image's file name to `{from_dataset, qa_pairs}`: "coco" or
"ego_objects", and a list of `{question, answer, rle_seg, segmentation_path}`; images in `coco/train2017` (or
`train2017`) and `egoobjects/images` (or `images`). Masks of EgoObjects were made by SAM from boxes and are noisy; the
images have COCO's and EgoObjects' own licences.

Quirks: `answer` is a category; `rle_seg` is at the image's own size; the PNGs of `segmentation_path` are not in every
release, so they are read only without an `rle_seg`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskselect.data.files import Images, find_one, inside
from maskselect.data.images import image_size, load_mask
from maskselect.data.index import Section, open_index
from maskselect.data.reader import Reader
from maskselect.ops import rle
from maskselect.structures.sample import Prompt, Sample

_HELP = "the link is in https://github.com/wangjunchi/LLMSeg"
_FOLDERS = {
    "coco": ("coco/train2017", "train2017", "coco/images/train2017"),
    "ego_objects": ("egoobjects/images", "EgoObjects/images", "ego_objects/images", "images"),
}


class LlmSeg40kDataset(Reader[Sample]):
    """Samples of one split, one per question. The pool is the masks of all questions about the image.

    Splits: train, validation (also "val") or test.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        name = "validation" if split == "val" else split
        places = [f"{name}.json", f"LLMSeg40K/{name}.json", f"annotations/{name}.json"]
        self.file = find_one(self.root, places, f"file of split {split!r}", _HELP)
        self.index = open_index(self.file, {"image": Section("", key="file_name", values=True)})
        self._images: dict[str, Images] = {}
        self._rows = [
            (str(record["file_name"]), number)
            for record in self.index.all("image")
            for number in range(len(_pairs(self.file, record)))
        ]

    def __getitem__(self, number: int) -> Sample:
        """Decode one sample, see `Reader`."""
        name, which = self._rows[number]
        record = self.index.get("image", name)
        image = self._picture(name, str(record.get("from_dataset")))
        size = image_size(image)
        pairs = _pairs(self.file, record)
        try:
            masks = torch.stack([torch.from_numpy(self._mask(pair, size)) for pair in pairs])
            prompt = Prompt(str(pairs[which]["question"]).strip(), torch.zeros(0, *size, dtype=torch.bool))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file}, image {name!r}: {error}") from error
        return Sample(
            image=image,
            image_id=name,
            sample_id=f"{name}:{which}",
            prompt=prompt,
            gt_pool=masks,
            targets=(which,) if masks[which].any() else (),
            kind="reasoning",
        )

    def image_ids(self) -> list[str]:
        """The image of each sample."""
        return [name for name, _ in self._rows]

    def _picture(self, name: str, source: str) -> Path:
        if source not in _FOLDERS:
            raise ValueError(f"{self.file}, image {name!r} is from {source!r}; expected {' or '.join(_FOLDERS)}")
        if source not in self._images:
            self._images[source] = Images([self.root / folder for folder in _FOLDERS[source]], _HELP)
        return self._images[source].find(name)

    def _mask(self, pair: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        if pair.get("rle_seg"):
            mask = rle.decode(pair["rle_seg"])
        else:
            mask = load_mask(inside(self.root, str(pair["segmentation_path"]), "mask"))
        if mask.shape != size:
            raise ValueError(f"a mask is of size {list(mask.shape)}, the image of {list(size)}")
        return mask


def _pairs(file: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = record.get("qa_pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise ValueError(f"{file}, image {record.get('file_name')!r} has no list qa_pairs")
    return pairs
