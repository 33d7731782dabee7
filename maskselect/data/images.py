"""Reading images, masks and references of any form to arrays."""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskselect.data.files import refuse_pointer
from maskselect.data.tiff_header import unsupported
from maskselect.ops.masks import binary
from maskselect.structures.references import BoxRef, MaskRef, PointRef, Reference

ImageSource = str | Path | bytes | BinaryIO | Image.Image | np.ndarray
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Suffixes of the images of a folder."""

_NEARLY_BLACK = 16  # of 255; 12-bit white in 16 bits reads as 16
_URL = re.compile(r"(?i:https?|ftp|file|s3|gs|hf|data):")
_ROWS = 1024  # rows converted at a time, to save memory with very large images
_ORIENTATION = 0x0112  # EXIF tag
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)
"""Exceptions of PIL's readers for damaged files."""


class DarkImageWarning(UserWarning):
    """An image is nearly black, probably because its values do not use the range of their type."""


def load_image(source: ImageSource) -> np.ndarray:
    """Read any image as (H, W, 3) uint8 RGB, writable and contiguous; the result shares no memory with the source.

    Images of any mode are accepted: 16-bit and float images are scaled to 8 bits, transparency is laid on white, the
    EXIF orientation is applied, and of several frames the first is read. An image without a value above 16 of 255, as
    of 10- or 12-bit values in 16 bits, gives a `DarkImageWarning`; an array does not.

    Args:
        source: a file, its bytes, a file opened for reading bytes, a PIL image, or an array (H, W, 3) uint8.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is a URL, no image, truncated, empty or far too large.
        TypeError: the source is of another type.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source)
    if isinstance(source, Image.Image):
        _check_side(source.size, "image")
        picture, name = _read(source, "image"), "the image"
    else:
        name = source_name(source, "image")
        picture = open_picture(source, name)
    pixels = _to_rgb(_upright(picture))
    if (top := int(pixels.max())) <= _NEARLY_BLACK:
        deep = picture.mode[:1] in ("I", "F")
        cause = "; 10- or 12-bit values in a wider type have to be scaled to its whole range first" if deep else ""
        warnings.warn(
            f"{name} reads nearly black: no value is above {top} of 255{cause}", DarkImageWarning, stacklevel=2
        )
    return pixels


def source_name(source: object, what: str) -> str:
    """The name of an image source in messages, for example "image cup.jpg".

    Raises:
        TypeError: it is no image source.
        ValueError: it is a URL.
    """
    if isinstance(source, str | Path):
        if _URL.match(str(source)):
            raise ValueError(f"{what} {source} is a URL; expected a file: download it first")
        return f"{what} {source}"
    if isinstance(source, bytes | bytearray):
        return f"{what} of {len(source)} bytes"
    if callable(getattr(source, "read", None)):
        name = getattr(source, "name", None)
        return f"{what} {name}" if isinstance(name, str) else f"{what} from an open file"
    module = "torch." if type(source).__module__.startswith("torch") else ""
    raise TypeError(
        f"{what} is of type {module}{type(source).__name__}; expected a file, its bytes, a PIL image or a uint8 array "
        "(H, W, 3)"
    )


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of the result of `load_image`, from the header alone. Raises the same errors."""
    with _opened(path, source_name(path, "image")) as picture:
        return (picture.width, picture.height) if _swaps_sides(picture) else (picture.height, picture.width)


def is_turned(path: str | Path) -> bool:
    """Whether the EXIF orientation of an image file swaps its sides. Raises the errors of `load_image`."""
    with _opened(path, source_name(path, "image")) as picture:
        return _swaps_sides(picture)


def _swaps_sides(picture: Image.Image) -> bool:
    return picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


def collect_images(sources: Sequence[Path], output: Path) -> list[Path]:
    """Files, which need not exist, and the images of folders, each once, in order.

    A source that is `output` itself is listed without the pictures that an earlier run wrote.

    Raises:
        ValueError: a source is a URL, or two images have one stem, so that their answers would have one name.
        FileNotFoundError: a folder has no images.
    """
    images: dict[Path, None] = {}
    for source in sources:
        source_name(source, "image")  # refuses a URL
        files = list_images(source) if source.is_dir() else [source]
        ours = source.is_dir() and output.is_dir() and source.samefile(output)
        images |= dict.fromkeys(f for f in files if not (ours and f.name.endswith((".mask.png", ".overlay.png"))))
    by_stem: dict[str, Path] = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"images {other} and {path} share the stem {path.stem!r}, after which their answers would be named; "
                "rename one, or run them apart"
            )
    return list(images)


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, by name.

    Raises:
        FileNotFoundError: there is no folder, or no image in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist; expected a folder of images")
    images = [p for p in sorted(Path(folder).iterdir()) if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    if not images:
        raise FileNotFoundError(f"folder {folder} holds no image; expected files such as .png or .jpg in it")
    return images


def load_mask(path: str | Path) -> np.ndarray:
    """Read a mask image of any mode as (H, W) bool: non-zero is inside.

    A palette image counts by its index. Fully transparent pixels are outside; if only the alpha channel shows the mask,
    it decides alone. Floats must be 0 and 1, or 0 and 255: probabilities are no mask.

    Raises:
        FileNotFoundError, ValueError: as `load_image`.
    """
    name = source_name(path, "mask")
    picture = open_picture(path, name)
    if picture.mode == "F":
        return binary(np.asarray(picture), name)
    alpha = np.asarray(picture.getchannel("A")) > 0 if "A" in picture.getbands() else None
    if picture.mode in ("RGBA", "RGBa"):
        picture = picture.convert("RGB")
    elif picture.mode in ("LA", "PA", "La"):
        picture = picture.getchannel(0)
    elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # zero is not black in these
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    inside: np.ndarray = np.asarray(values.any(axis=2) if values.ndim == 3 else values != 0)
    if alpha is None:
        return inside
    return inside & alpha if (inside & alpha).any() or alpha.all() else alpha


def parse_reference(text: str) -> Reference:
    """Parse a reference: `box:x0,y0,x1,y1`, `point:x,y` (pixels) or the path of a mask image.

    Raises:
        ValueError: numbers are missing, or the mask is empty.
        FileNotFoundError: the mask image does not exist.
    """
    kind, colon, numbers = text.partition(":")
    if colon and kind == "box":
        x0, y0, x1, y1 = _numbers(text, numbers, "box:x0,y0,x1,y1", 4)
        return BoxRef((x0, y0, x1, y1))
    if colon and kind == "point":
        x, y = _numbers(text, numbers, "point:x,y", 2)
        return PointRef((x, y))
    return MaskRef(load_mask(text), origin=f"reference mask {text}")


def _numbers(text: str, numbers: str, form: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in numbers.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"reference {text!r} cannot be read; expected {form} with {count} numbers in pixels")
    return values


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"image array must be (H, W, 3) uint8, got {array.shape} {array.dtype}")
    _check_side((array.shape[1], array.shape[0]), "image array")
    return np.array(array, order="C")


def _check_side(size: tuple[int, int], name: str) -> None:
    if 0 in size:
        raise ValueError(f"{name} has no pixels: it is {size[0]}x{size[1]} (width x height)")


def _opened(source: str | Path | bytes | BinaryIO, name: str) -> Image.Image:
    """Open an image without reading its pixels. Raises the errors of `load_image`, with the file's `name`."""
    file: Path | BinaryIO
    if isinstance(source, str | Path):
        file = Path(source)
        if not file.exists():
            raise FileNotFoundError(f"{name} does not exist")
        if not file.is_file():
            raise ValueError(f"{name} is not a file; expected an image file")
        if file.stat().st_size == 0:
            raise ValueError(f"{name} is an empty file of 0 bytes; expected an image")
        refuse_pointer(file, name)
    else:
        file = io.BytesIO(source if isinstance(source, bytes | bytearray) else _content(source, name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata and many pixels; both are handled
            picture = Image.open(file)
    except PermissionError as error:
        raise PermissionError(f"{name} cannot be read: permission denied") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ValueError(f"{name} has too many pixels; expected at most {limit} million") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} {unsupported(file)}") from error
    except _DAMAGE as error:
        raise ValueError(f"{name} cannot be read as an image: {_first_line(error)}") from error
    _check_side(picture.size, name)
    return picture


def _content(file: BinaryIO, name: str) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise ValueError(f"{name} cannot be read: {_first_line(error)}") from error
    if not isinstance(content, bytes):
        raise TypeError(f"{name} reads as text; expected a file opened for bytes, mode 'rb'")
    return content


def open_picture(source: str | Path | bytes | BinaryIO, name: str) -> Image.Image:
    """Read an image in its own mode, without orientation. Raises the errors of `load_image`, with the file's `name`."""
    with _opened(source, name) as picture:  # closes the file; the pixels stay
        return _read(picture, name)


def _read(picture: Image.Image, name: str) -> Image.Image:
    try:
        picture.load()
    except _DAMAGE as error:
        raise ValueError(f"{name} is truncated or damaged: {_first_line(error)}") from error
    return picture


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Unreadable EXIF is ignored."""
    try:
        # exif_transpose copies all pixels even without an orientation.
        return ImageOps.exif_transpose(picture) if picture.getexif().get(_ORIENTATION, 1) != 1 else picture
    except _DAMAGE:
        return picture


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """Convert any mode to (H, W, 3) uint8, some rows at a time."""
    width, height = picture.size
    out = np.empty((height, width, 3), np.uint8)
    scale = _scale(picture)
    for top in range(0, height, _ROWS):
        rows = picture.crop((0, top, width, min(top + _ROWS, height)))
        out[top : top + _ROWS] = _rows_to_rgb(rows, scale)
    return out


def _rows_to_rgb(rows: Image.Image, scale: float | None) -> np.ndarray:
    if scale is not None:
        values = np.nan_to_num(np.asarray(rows, np.float32), posinf=np.inf, neginf=0.0)
        return np.clip(values * scale + 0.5, 0, 255).astype(np.uint8)[..., None]
    if rows.mode == "RGB" and "transparency" not in rows.info:
        return np.asarray(rows)
    if rows.mode == "La":  # PIL cannot convert it to RGBA directly
        rows = rows.convert("LA")
    if rows.has_transparency_data:
        rgba = rows.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(rows.convert("RGB"))


def _scale(picture: Image.Image) -> float | None:
    """Factor from the picture's values to 0..255; None for 8 bits.

    16-bit values always span 0..65535, so that a dark picture stays dark. Floats span the smallest of 0..1, 0..255 and
    0..65535 that holds them; 32-bit integers span 0..65535 or 0..maximum.
    """
    if picture.mode.startswith("I;16"):
        return 255 / 65535
    if picture.mode not in ("I", "F"):
        return None
    extrema: Any = picture.getextrema()
    top = float(np.nan_to_num(extrema[1], posinf=0.0))
    spans = (1.0, 255.0, 65535.0) if picture.mode == "F" else (65535.0,)
    return 255 / next((span for span in spans if top <= span), top)
