"""Own data of which some images cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GOOD = (1, 2, 3)
REASONS = {
    4: r"own/4.*sample .*: masks of \[8, 12\], image .*4\.jpg of \[12, 8\] .*EXIF orientation turns it",
    5: r"own/5.*5\.jpg.*cannot be read",
    6: r"own/6.*6\.jpg",
    7: r"own/7.*annotation 70",
}
"""Why each of the other images cannot be used: a turned photograph with masks of the frame before, a damaged file, one
that is not there, and a damaged annotation."""


def write_own(root: Path, images: tuple[int, ...] = (*GOOD, *REASONS), split: str = "train") -> Path:
    """Own data whose images 1 to 3 are good."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "mug"}]}
    for number in images:
        file = root / "images" / f"{number}.jpg"
        picture = Image.fromarray(rng.integers(0, 255, (8, 12, 3), np.uint8))
        turned = Image.Exif()
        turned[0x0112] = 6
        picture.save(file, **({"exif": turned} if number == 4 else {}))
        if number == 5:
            file.write_bytes(file.read_bytes()[:150])
        if number == 6:
            file.unlink()
        outline: Any = [[0, 0, 6, 0, 6, 4, 0, 4]] if number != 7 else "no outline"
        data["images"].append({"id": number, "file_name": file.name, "height": 8, "width": 12})
        data["annotations"].append({"id": 10 * number, "image_id": number, "category_id": 1, "segmentation": outline})
    (root / f"{split}.json").write_text(json.dumps(data))
    return root
