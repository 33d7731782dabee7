"""Set-up and the Makefile: what a person types on a fresh machine."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["project"]["dependencies"], *EXTRAS.values(), PROJECT["dependency-groups"]["dev"])
    for text in group
]
PINS = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_lower_bound_and_a_cap_at_a_major_version(requirement: Requirement) -> None:
    bounds = {specifier.operator: specifier.version for specifier in requirement.specifier}
    assert set(bounds) == {">=", "<"}
    assert bounds["<"].isdigit()


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_constraints_pin_every_dependency_within_its_bounds(requirement: Requirement) -> None:
    pinned = [version for name, version in PINS if name == requirement.name]
    assert pinned and all(requirement.specifier.contains(Version(version)) for version in pinned)


def test_constraints_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_the_base_install_has_neither_training_nor_data_packages() -> None:
    base = {Requirement(text).name for text in PROJECT["project"]["dependencies"]}
    assert not base & {"lightning", "jsonargparse", "tensorboard", "ijson", "pyarrow", "ray"}
    assert {"train", "data", "ray", "import", "qlora", "deepspeed", "regions"} <= set(EXTRAS)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_predict_takes_any_path(tmp_path: Path) -> None:
    """Spaces, quotes and other letters in the names of the image and of the output folder."""
    image, output = tmp_path / "my photo's Ä.png", tmp_path / "out put"
    shutil.copy(ROOT / "docs" / "example.png", image)
    subprocess.run(
        ["make", "predict", f"IMAGE={image}", f"OUTPUT={output}", f"PYTHON='{sys.executable}'", "READY=Makefile"],
        cwd=ROOT,
        check=True,
        timeout=300,
        env=os.environ | {"PROMPT": "the red leaves"},
    )
    assert {path.name for path in output.iterdir()} == {
        f"{image.stem}{end}" for end in (".json", ".mask.png", ".overlay.png")
    }
