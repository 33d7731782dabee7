"""The house itself: layers, imports, size of files, set-up."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import maskselect

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "maskselect").rglob("*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(maskselect.__path__, "maskselect."))


def test_layers_are_held() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_say_what_they_are(path: Path) -> None:
    assert path.name == "__init__.py" or path.read_text().startswith('"""')


def test_no_rooms_for_odds_and_ends() -> None:
    forbidden = {"utils", "helpers", "common", "misc"}
    assert not [path for path in SOURCES if forbidden & {path.stem, *path.parent.parts}]


PREDICTS = ("backends", "encoders", "heads", "lmm", "ops", "proposers", "refiners", "structures", "systems", "tokens")
MAKERS = {"as_tensor", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "tensor", "zeros"}


@pytest.mark.parametrize("room", PREDICTS)
def test_tensors_on_the_predict_path_name_their_dtype(room: str) -> None:
    """What is left to torch's default dtype changes with whoever sets that."""
    for path in sorted((ROOT / "maskselect" / room).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            made = ast.unparse(call.func).removeprefix("torch.")
            if made in MAKERS and ast.unparse(call.func).startswith("torch."):
                assert any(given.arg == "dtype" for given in call.keywords), f"{path}:{call.lineno}"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == maskselect.__version__


def test_licence_and_types_ship() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert (ROOT / "maskselect" / "py.typed").exists()


def test_both_scripts_are_one_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["maskselect"] == scripts["lightning"] == "maskselect.cli:main"


def test_what_ci_runs_is_executable() -> None:
    for name in (".ci/run", "tools/setup.sh"):
        assert os.access(ROOT / name, os.X_OK)
        subprocess.run(["sh", "-n", ROOT / name], check=True)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("target", ["predict", "test", "lint", "types", "scenes", "test-all"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout


def test_make_passes_prompts_and_references_on(tmp_path: Path) -> None:
    options = ["PROMPT=mugs left of <mask-ref>; it's", "REF=box:1,2,3,4 point:5,6", "IMAGE=a.png"]
    done = subprocess.run(["make", "-n", "predict", *options], cwd=ROOT, capture_output=True, text=True, check=True)
    assert '--reference "box:1,2,3,4" --reference "point:5,6"' in done.stdout
    assert '--prompt "$PROMPT"' in done.stdout
