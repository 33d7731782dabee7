"""`PrecomputedProposer`: candidates that were made before, one JSON file an image.

A file holds `image_id`, `size` [h, w], `proposer` (a hash over the proposer's configuration and weights, so that
candidates of two proposers never mix), `source`, and `masks`: records of `segmentation` (compressed COCO RLE), `score`,
and whatever further numbers the proposer gave.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.ops import rle
from maskselect.structures.masks import MaskSet


def proposer_hash(config: dict[str, Any], checkpoint: str | Path | None = None) -> str:
    """Twelve hex digits that name a proposer: its configuration, any JSON, and the bytes of its checkpoint.

    checkpoint: a file, or a shipped name as in `find_checkpoint`.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    if checkpoint is not None:
        path = Path(checkpoint)
        digest.update((path if path.is_file() else find_checkpoint(checkpoint)).read_bytes())
    return digest.hexdigest()[:12]


class PrecomputedProposer:
    """Reads and writes candidates by image id.

    folder: where the files are; made when something is written.
    proposer: hash that the files must carry (see `proposer_hash`); "" accepts any and writes "unknown".
    """

    def __init__(self, folder: str | Path, proposer: str = "") -> None:
        self.folder = Path(folder)
        self.proposer = proposer

    def path_of(self, image_id: str) -> Path:
        """The file of an image. Characters that a file name cannot have are escaped as in a URL."""
        return self.folder / f"{quote(image_id, safe=' ')}.json"

    def has(self, image_id: str) -> bool:
        """Whether candidates of that image exist. They are not read."""
        return self.path_of(image_id).is_file()

    def propose(self, image: np.ndarray, image_id: str) -> MaskSet:
        """Stored candidates of (H, W, 3) uint8 `image`, checked against its id and size.

        Raises FileNotFoundError when there are none, ValueError when they are damaged, of another image, size or
        proposer.
        """
        path = self.path_of(image_id)
        if not path.is_file():
            raise FileNotFoundError(f"no precomputed candidates for image {image_id!r}: {path} is missing")
        record = _read(path)
        if record["image_id"] != image_id:
            raise ValueError(f"candidates {path} belong to image {record['image_id']!r}; expected {image_id!r}")
        if tuple(record["size"]) != image.shape[:2]:
            raise ValueError(
                f"candidates {path} are for an image of {record['size']} (h, w); image {image_id!r} has "
                f"{list(image.shape[:2])}"
            )
        if self.proposer and record["proposer"] != self.proposer:
            raise ValueError(f"candidates {path} are by proposer {record['proposer']!r}; expected {self.proposer!r}")
        return _to_masks(record, path)

    def write(self, image_id: str, candidates: MaskSet) -> Path:
        """Store candidates; the file appears whole or not at all. Columns of one number a mask are kept."""
        columns = {name: c.tolist() for name, c in candidates.columns.items() if c.ndim == 1}
        codes, scores = rle.encode(candidates.masks.numpy()), candidates.scores.tolist()
        masks = [
            {"segmentation": code, "score": score, **{name: values[k] for name, values in columns.items()}}
            for k, (code, score) in enumerate(zip(codes, scores, strict=True))
        ]
        record = {
            "image_id": image_id,
            "size": list(candidates.image_size),
            "proposer": self.proposer or "unknown",
            "source": candidates.source,
            "masks": masks,
        }
        path = self.path_of(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(record))
        os.replace(temporary, path)
        return path


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"candidates {path} are not valid JSON: {error}") from error
    missing = {"image_id", "size", "proposer", "masks"} - (record.keys() if isinstance(record, dict) else set())
    if missing:
        raise ValueError(f"candidates {path} lack {sorted(missing)}; were they written by PrecomputedProposer?")
    return record


def _to_masks(record: dict[str, Any], path: Path) -> MaskSet:
    size, rows = (int(record["size"][0]), int(record["size"][1])), record["masks"]
    try:
        masks = rle.decode_many([row["segmentation"] for row in rows], size)
        names = set.intersection(*({*row} for row in rows)) - {"segmentation", "score"} if rows else set()
        columns = {name: torch.tensor([float(row[name]) for row in rows]) for name in sorted(names)}
        scores = torch.tensor([float(row["score"]) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"candidates {path} hold a damaged mask: {error!r}") from error
    return MaskSet(torch.from_numpy(masks), scores, record.get("source", "precomputed"), columns)
