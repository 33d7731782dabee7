"""Scenes by their id at the size at which they are drawn, and a digest of the code that draws them."""

import hashlib
import zlib
from pathlib import Path

from maskselect.scenes.layout import build_scene
from maskselect.scenes.spec import Scene

DRAWN_SIDE = 256
"""Longer side, in pixels, at which scenes are drawn."""

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


def image_size_of(scene_id: str) -> tuple[int, int]:
    """(H, W) at which a scene is drawn: a quarter of them are not square, decided by the id alone."""
    number = zlib.crc32(scene_id.encode())
    return _ODD_SIZES[number // 8 % 2] if number % 4 == 0 else (DRAWN_SIDE, DRAWN_SIDE)


def scene_of(scene_id: str) -> Scene:
    """The scene of an id at its size."""
    return build_scene(scene_id, image_size_of(scene_id))
