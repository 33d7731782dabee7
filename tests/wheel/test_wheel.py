"""The wheel, installed in new environments and used away from the repository. `make test-wheel` runs these tests."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.importers.test_llm_seg import Made as LlmSegRelease
from tests.importers.test_ras import Made as RasRelease

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]
NEEDS_AN_EXTRA = {"serving": "serve", "training": "train"}
"""Rooms that cannot be imported with the base dependencies alone, and the extra of each."""

IMPORT_ALL = """
import importlib, json, pkgutil, maskselect
from maskselect.backends.optional import missing_package
failed = {}
for module in pkgutil.walk_packages(maskselect.__path__, "maskselect.", onerror=lambda name: None):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        failed[module.name] = missing_package(error) or repr(error)
print(json.dumps([maskselect.__file__, failed]))
"""


class Environment:
    """An environment with the wheel, and commands run in it from an empty folder."""

    def __init__(self, folder: Path, extras: str = "") -> None:
        self.bin = folder / "environment" / "bin"
        self.work = folder / "work"
        self.work.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.variables = kept | {"EXTRAS": extras}
        command = ["sh", str(ROOT / "tools" / "setup.sh"), "--wheel", str(self.bin.parent)]
        subprocess.run(command, env=self.variables, check=True, timeout=1800)

    def run(self, *command: str, status: int = 0) -> str:
        """What a program of the environment prints, on standard error for status 2; its status must be `status`."""
        program, *arguments = command
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.work,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stderr if status == 2 else done.stdout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The base dependencies alone."""
    return Environment(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With what training and the importers need."""
    return Environment(tmp_path_factory.mktemp("full"), "train,data,import")


def test_every_module_imports_with_the_base_dependencies(base: Environment) -> None:
    file, failed = json.loads(base.run("python", "-c", IMPORT_ALL).splitlines()[-1])
    assert str(ROOT) not in file
    unexpected = {
        name: sentence
        for name, sentence in failed.items()
        if f"'maskselect[{NEEDS_AN_EXTRA.get(name.split('.')[1], 'none')}]'" not in sentence
    }
    assert not unexpected
    absent = "import importlib.util as u; print([m for m in ('lightning', 'tensorboard', 'ijson') if u.find_spec(m)])"
    assert base.run("python", "-c", absent).strip() == "[]"


def test_the_base_install_predicts(base: Environment) -> None:
    base.run("maskselect", "predict", "--image", str(ROOT / "docs" / "example.png"), "--prompt", "the red leaves")
    answer = json.loads((base.work / "outputs" / "example.json").read_text())
    assert answer["model"] == "ras" and answer["masks"]
    select = "import maskselect, sys; print(len(maskselect.load('ras').select(sys.argv[1], 'the red leaves').masks))"
    assert int(base.run("python", "-c", select, str(ROOT / "docs" / "example.png"))) == len(answer["masks"])


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("fit -c ras.yaml", "train"),
        ("propose --images . --output proposals", "data"),
        ("make_scenes --output scenes --split val --count 1 --seed 0", "data"),
    ],
)
def test_a_missing_extra_is_one_sentence(base: Environment, command: str, extra: str) -> None:
    before = set(base.work.iterdir())
    message = base.run("maskselect", *command.split(), status=2)
    assert message.count("\n") == 1 and f"pip install 'maskselect[{extra}]'" in message
    assert set(base.work.iterdir()) == before


def test_configs_are_found_by_name(full: Environment) -> None:
    small = (
        "--trainer.max_steps=1 --trainer.accelerator=cpu --data.init_args.batch_size=1 --trainer.limit_val_batches=1"
    )
    counts = "--data.init_args.train.init_args.count=1 --data.init_args.val.init_args.count=1 --output=run"
    full.run("lightning", "fit", "-c", "ras.yaml", *small.split(), *counts.split())
    assert (full.work / "run" / "ras.safetensors").is_file()
    assert "hf download" in full.run("python", "-m", "maskselect", "doctor", "-c", "paper/ras_13b.yaml", status=1)


def test_published_weights_are_imported(full: Environment, tmp_path: Path) -> None:
    ras = RasRelease(tmp_path / "a")
    command = ["maskselect", "import", "ras", str(ras.folder)]
    full.run(*command, "ras", "-c", str(ras.config), "--encoder-order", "position,clip")
    assert (full.work / "ras" / "ras.safetensors").is_file()
    refused = full.run(*command, "other", status=2)  # the default config is found, and does not fit so small a release
    assert "does not exist" not in refused
    (tmp_path / "b").mkdir()
    llm_seg = LlmSegRelease(tmp_path / "b")
    command = ["maskselect", "import", "llm-seg", str(llm_seg.source), "llm-seg", "--tokenizer", str(llm_seg.base)]
    full.run(*command, "-c", str(llm_seg.config))
    assert (full.work / "llm-seg" / "llmseg.safetensors").is_file()
