"""Runs the code of the quickstart, of the recipes and of the notebook, in a folder that looks like a checkout.

A block is skipped if the line before it is `<!-- not run: REASON -->`. Evaluations run on two scenes.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskselect.cli import main, tool

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide"
RECIPES = (
    "quickstart",
    "find_things",
    "label_a_data_set",
    "own_data",
    "evaluation",
    "compare",
    "train_a_paper_system",
    "add_a_system",
    "add_a_data_set",
)
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
FENCE = re.compile(r"(?:^<!-- not run: (.*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEWER = re.compile(r"(--scenes |scenes=)\d+")


@dataclass(frozen=True)
class Block:
    """Code of a page; `reason` says why it is not run."""

    language: str
    code: str
    reason: str = ""


def blocks(page: Path) -> list[Block]:
    found = [Block(language, code, reason) for reason, language, code in FENCE.findall(page.read_text())]
    return [block for block in found if block.language in ("", "bash", "python")]


def left_out() -> list[Any]:
    """Blocks that are not run, so that a test report lists them with their reasons."""
    return [
        pytest.param(block.reason, id=f"{name}-{number}")
        for name in RECIPES
        for number, block in enumerate(blocks(GUIDE / f"{name}.md"))
        if block.reason
    ]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the code names; what it writes stays there."""
    for name in ("docs", "examples", "configs", "checkpoints", "tools", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(code: str, names: dict[str, Any], page: str) -> None:
    exec(compile(FEWER.sub(r"\g<1>2", code), page, "exec"), names)


def run_shell(code: str) -> None:
    """Each command in this process: a new one takes seconds to start."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(FEWER.sub(r"\g<1>2", line), comments=True)
        if words:
            assert command(words)() == 0, line


def command(words: list[str]) -> Callable[[], int]:
    """A command line without its program.

    For `make` the recipe's own command, whose words are printed by a program that stands in for Python.
    """
    if words[0] == "make":
        # `-o`: without the set-up, even if the Makefile is older than what an environment is made of.
        shown = [*words, "-o", "Makefile", "READY=Makefile", "PYTHON=printf '%s\\n'"]
        # Without what an outer make passes on, with which this one would announce its folder.
        clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        run = subprocess.run(shown, capture_output=True, text=True, check=True, env=clean)
        words = run.stdout.splitlines()
        words = ["python", *words]
    program, *rest = words
    if Path(program).name == "python":
        return lambda: tool(Path(rest[0]).stem, rest[1:])
    assert Path(program).name in ("maskselect", "lightning"), program
    return lambda: main(rest, "maskselect")


@pytest.mark.parametrize("name", RECIPES)
def test_the_code_of_a_page_runs(name: str, checkout: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(GUIDE / f"{name}.md"):
        if block.reason:
            continue
        if block.language == "python":
            run_python(block.code, names, name)
        else:
            run_shell(block.code)


@pytest.mark.parametrize("reason", left_out())
def test_a_block_is_left_out_with_a_reason(reason: str) -> None:
    assert len(reason) > 10
    pytest.skip(reason)


def test_the_notebook_runs_from_top_to_bottom(checkout: Path) -> None:
    """Its cells, in order. It is stored without outputs, so that it holds nothing of an older version."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        run_python("".join(cell["source"]), names, f"cell {number}")
