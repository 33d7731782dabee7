"""What a prediction by the compact models imports: torch and small packages, and not what only others need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNWANTED = (
    "datasets", "huggingface_hub", "ijson", "jinja2", "jsonargparse", "lightning", "open_clip", "peft", "pyarrow",
    "rich", "scipy", "segment_anything", "tensorboard", "timm", "torch._dynamo", "torch._inductor", "torchmetrics",
    "torchvision", "transformers",
)  # fmt: skip
SCRIPT = """
import sys
import torch
before = set(sys.modules)  # whatever this version of torch imports by itself
from maskselect.cli import tool
status = tool("predict", sys.argv[2:])
names = set(sys.modules) - before
print("IMPORTED", *[name for name in sys.argv[1].split(",") if name in names])
sys.exit(status)
"""


@pytest.mark.parametrize("model", ["ras", "llmseg"])
def test_one_prompt_imports_little(model: str, tmp_path: Path) -> None:
    image, output = str(ROOT / "docs" / "example.png"), str(tmp_path / "out")
    arguments = ["--image", image, "--prompt", "the red leaves", "--output", output, "--model", model]
    command = [sys.executable, "-c", SCRIPT, ",".join(UNWANTED), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "mask(s), of" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["IMPORTED"]
