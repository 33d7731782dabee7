"""How many tokens masks of COCO take in each form, by the compact tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.lmm.tokenizer import COMPACT_FILE
from maskselect.ops.rle import decode, to_compressed
from maskselect.structures.codec import Codec


@pytest.fixture
def masks(shared_data: Path) -> list[tuple[np.ndarray, str]]:
    data = json.loads((shared_data / "coco128/annotations/instances_train2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    some = [one for one in data["annotations"] if not one["iscrowd"]][:60]
    codes = [(one["segmentation"], sizes[one["image_id"]], names[one["category_id"]]) for one in some]
    return [(decode(to_compressed(code, size), size), name) for code, size, name in codes]


def tokens(codec: Codec, masks: list[tuple[np.ndarray, str]]) -> float:
    tokenizer = Tokenizer.from_file(str(COMPACT_FILE))
    tokenizer.add_special_tokens(list(codec.tokens))
    texts = [codec.encode(torch.from_numpy(mask[None]), [label]) for mask, label in masks]
    for text, (mask, label) in zip(texts, masks, strict=True):
        found = codec.decode(text, mask.shape, [label])  # type: ignore[arg-type]
        assert found.failure is None and found.repairs == 0
    return float(np.mean([len(tokenizer.encode(text).ids) for text in texts]))


def test_run_lengths_and_bricks_save_tokens(masks: list[tuple[np.ndarray, str]]) -> None:
    full, row = (tokens(DescriptorCodec(16, layout), masks) for layout in ("full", "row"))  # type: ignore[arg-type]
    assert row < 0.4 * full  # the paper: 26 % of 583 tokens
    image, row = (tokens(DescriptorCodec(64, layout), masks) for layout in ("image", "row"))  # type: ignore[arg-type]
    text, bricks = tokens(BoxwiseCodec(bricks=False), masks), tokens(BoxwiseCodec(), masks)
    assert image < row and bricks < 0.65 * text < 0.65 * row  # the paper: 150.4, 283.0 and 767.6 tokens
