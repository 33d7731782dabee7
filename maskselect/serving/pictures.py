"""`Pictures`: the pictures that were read lately, with their readings and what was sent about them."""

import hashlib
import io
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from PIL import Image

from maskselect.data.images import load_image
from maskselect.predictor import Model, ReadPicture
from maskselect.serving.settings import Refusal, Settings, bad_input
from maskselect.serving.wire import candidates_record, duplicates_iou


@dataclass(frozen=True, eq=False)
class Kept:
    """A picture of the store.

    Attributes:
        key: digest of the file.
        content: the file.
        suffix: of the file's format, such as ".png".
        picture: the picture and its reading.
        record: what is sent about it, see `describe`.
    """

    key: str
    content: bytes
    suffix: str
    picture: ReadPicture
    record: dict[str, Any]


class Pictures:
    """The last pictures, by the digest of their files. The oldest leaves when there are too many.

    Args:
        model: reads pictures.
        settings: limits.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: str) -> Kept | None:
        """A picture that is still there."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def get(self, key: str) -> Kept:
        """A picture. Raises Refusal if it is not there any more."""
        kept = self.find(key)
        if kept is None:
            raise Refusal(404, "no_picture", "the picture is not kept any more; send it again")
        return kept

    def read(self, content: bytes) -> Kept:
        """Read a file, unless it is kept; the worker calls this.

        Raises:
            Refusal: it is no picture, or it is too large.
        """
        key = digest(content)
        if (kept := self.find(key)) is not None:
            return kept
        try:
            suffix = self._checked(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a dark picture is shown, and needs no warning
                picture = self.model.read(load_image(content))
        except (ValueError, OSError) as error:
            raise bad_input(error) from error
        kept = Kept(key, content, suffix, picture, self.describe(key, picture))
        with self._lock:
            self._kept[key] = kept
            while len(self._kept) > self.settings.pictures:
                self._kept.popitem(last=False)
        return kept

    def describe(self, key: str, picture: ReadPicture) -> dict[str, Any]:
        """The JSON about a picture: id, size [H, W], working [h, w], and candidates or None."""
        candidates = None
        if picture.pool is not None:
            candidates = candidates_record(picture.pool, duplicates_iou(self.model))
        working = picture.working.shape
        return {"id": key, "size": list(picture.size), "working": [working[0], working[1]], "candidates": candidates}

    def _checked(self, content: bytes) -> str:
        """The suffix of a picture's format, after its size is checked by its header. Raises Refusal."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = Image.open(io.BytesIO(content))
        except Exception:  # load_image says what is wrong with it
            return ".png"
        width, height = header.size
        if width * height > self.settings.megapixels * 1e6:
            raise Refusal(
                413, "too_large", f"the picture has {width}x{height} pixels; expected at most "
                f"{self.settings.megapixels:g} million",
            )  # fmt: skip
        suffixes = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
        return suffixes.get(header.format or "", f".{(header.format or 'png').lower()}")


def digest(content: bytes) -> str:
    """The key of a file."""
    return hashlib.sha256(content).hexdigest()[:32]
