"""The public surface as a type checker sees it from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from typing import Any, assert_type

import numpy as np
from PIL import Image

import maskselect
from maskselect import BoxRef, MaskGroup, MaskRef, Model, PointRef

model = maskselect.load("ras", device="cpu")
assert_type(model, Model)
image = np.zeros((8, 8, 3), np.uint8)
group = model.select(image, "left of <mask-ref>", references=[BoxRef((0, 0, 4, 4))], threshold=0.5)
assert_type(group, MaskGroup)
groups = model.select_many("a.png", ["a", "b <mask-ref>"], [None, [PointRef((1, 2))]])
assert_type(groups, list[MaskGroup])
one: MaskRef = MaskRef(group.mask)
assert_type(len(group), int)
assert_type(group.no_target, bool)
assert_type(group.to_coco(image_id=1, category_id=2), list[dict[str, Any]])
assert_type(group.overlay("a.png"), Image.Image)
assert_type(maskselect.evaluate(model, "scenes", root=None, split="test", limit=3), dict[str, Any])
assert_type(maskselect.push_to_hub("ras", "org/name", folder="there"), str)
pixels = group.masks.sum() + group.mask.sum() + group.boxes.sum() + group.areas.sum() + group.scores.sum()
corners = [polygon.shape for polygons in group.polygons for polygon in polygons]
group.save("a.json")
"""


def strict(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """What mypy says of a script in a folder, without the settings of this project."""
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nfollow_imports = silent\nignore_missing_imports = true\n"
        "[mypy-torch.*,transformers.*,cv2.*,supervision.*]\nfollow_imports = skip\n"
    )
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "script.py", "--cache-dir", str(folder / "cache")]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_public_surface_is_typed(tmp_path: Path) -> None:
    done = strict(tmp_path, SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = 'import maskselect\nmaskselect.load("ras").select("a.png", 3).mask.nothing\n'
    done = strict(tmp_path, wrong)
    assert 'incompatible type "int"; expected "str"' in done.stdout and '"nothing"' in done.stdout


def test_every_public_name_is_there() -> None:
    import maskselect

    assert set(maskselect.__all__) <= set(dir(maskselect))
    for name in maskselect.__all__:
        assert getattr(maskselect, name).__name__ == name
    with pytest.raises(AttributeError, match="'maskselect' has no attribute 'nothing'"):
        maskselect.nothing  # noqa: B018
