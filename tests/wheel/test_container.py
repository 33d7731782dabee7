"""The steps of the Dockerfile as a script, in an environment of their own instead of a container."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_site import ROOT, instructions

pytestmark = pytest.mark.wheel


def find_uv() -> str:
    """The uv that tools/setup.sh finds or installs; pip would download torch anew."""
    found = shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
    if not Path(found).is_file():
        pytest.skip("uv is not installed; make setup installs it into .cache/uv")
    return found


def test_the_steps_of_the_dockerfile(tmp_path: Path) -> None:
    """COPY and RUN by uv, then what ENTRYPOINT starts. `useradd` needs root, and PyTorch's index a network to it."""
    source, data, environment = tmp_path / "src", tmp_path / "data", tmp_path / "environment"
    left_out = (ROOT / ".dockerignore").read_text().split()
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*left_out, ".*_cache", ".hypothesis"))
    data.mkdir()
    uv = find_uv()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = 0
    for name, text in instructions():
        if name == "RUN" and "useradd" not in text:
            script = re.sub(r"--extra-index-url \S+|--no-cache-dir", "", text).replace("/src", str(source))
            script = script.replace("pip install", f"{uv} pip install --quiet --python {environment}")
            subprocess.run(["sh", "-ec", script], cwd=source, env=kept, check=True, timeout=1800)
            ran += 1
    assert ran == 1 and not source.exists()
    shutil.copy(ROOT / "docs" / "example.png", data)
    command = [environment / "bin" / "maskselect", "predict", "--image", "example.png", "--prompt", "the red leaves"]
    subprocess.run(command, cwd=data, env=kept, check=True, timeout=600)
    assert {path.name for path in (data / "outputs").iterdir()} >= {"example.json", "example.mask.png"}
