"""The documentation: its links, files, names, commands and options exist, and no generated page is out of date."""

import argparse
import ast
import importlib
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from maskselect.cli.program import TRAINING_VERBS, VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "maskselect|tools|tests|configs|docs|benchmarks|checkpoints|examples"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGETS = set(" ".join(re.findall(r"^([a-z][\w -]*?):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
CONSOLE = {"maskselect", "lightning"}
INSTALLED = {"python", "ray", "ruff", "mypy", "lint-imports"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
current = pytest.mark.parametrize(  # the changelog also names what was removed
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)


def fences(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@current
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*[\w*]", page.read_text()):
        assert list(ROOT.glob(name)), name


@current
def test_classes_that_are_named_import(page: Path) -> None:
    for name in re.findall(r"`(maskselect(?:\.\w+)+)[`(]", page.read_text()):
        assert pkgutil.resolve_name(name) is not None, name


@pages
def test_python_is_valid(page: Path) -> None:
    for block in fences(page, "python"):
        assert ast.parse(block).body, "an empty block"


def commands(page: Path) -> Iterator[list[str]]:
    """Words of the command lines that start with `.venv/bin/`, `make` or a variable, without their comments."""
    for block in fences(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.search(r"(?:^|\s|=)(\.venv/bin/\S+ .*|make\b.*)", line)
            if command:
                yield shlex.split(command[1], comments=True)


def options_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    known = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = [action.choices[word] for word in words if word in action.choices]
            known |= options_of(inner[0], words) if inner else set()
    return known


def check_verb(verb: str, words: list[str]) -> None:
    assert verb in TRAINING_VERBS or verb in VERBS, verb
    for flag, name in pairwise(words):
        if flag == "-c" and re.match(r"[\w/]+\.yaml$", name):
            assert (ROOT / name).is_file(), name
    if verb in VERBS:
        known = options_of(VERBS[verb][0](verb), words)
        given = {word for word in words if re.match(r"--?[a-z][\w-]*$", word)}
        assert given <= known, f"{verb}: {sorted(given - known)}"


@pages
def test_commands_exist(page: Path) -> None:
    for program, *words in commands(page):
        if program == "make":
            wanted = [word for word in words if "=" not in word and re.fullmatch(r"[a-z-]+", word)]
            assert wanted, "make without a target"
            assert set(wanted) <= TARGETS, wanted
        elif Path(program).name in CONSOLE:
            check_verb(words[0], words[1:])
        else:
            assert Path(program).name in INSTALLED, program
            if words and words[0].startswith("tools/") and not words[0].startswith("tools/_"):
                check_verb(Path(words[0]).stem, words[1:])


def test_the_tests_see_commands() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 80


def test_the_command_line_reference_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv/bin/python tools/_write_cli_reference.py` writes it."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    module = importlib.import_module("_write_cli_reference")
    assert module.PAGE.read_text() == module.reference()


def rows_of_the_house() -> list[set[str]]:
    """Of pyproject.toml, with the rooms that exist."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [set(re.findall(r"\w+", row)) for contract in contracts for row in contract.get("layers", ())]
    here = {path.stem for path in (ROOT / "maskselect").iterdir() if path.is_dir() or path.suffix == ".py"}
    return [row & here for row in rows]


def test_the_picture_of_the_house_has_every_row() -> None:
    page = ROOT / "docs" / "guide" / "architecture.md"
    (diagram,) = fences(page, "mermaid")
    rows = re.findall(r"^  subgraph (\w+).*\n((?:    .*\n)+)", diagram, re.MULTILINE)
    assert [set(re.findall(r"\w+", rooms)) for _, rooms in rows] == rows_of_the_house()
    assert diagram.split("\n")[-2].split() == " --> ".join(name for name, _ in rows).split()


def test_the_page_of_the_house_has_a_sentence_a_room() -> None:
    text = (ROOT / "docs" / "guide" / "architecture.md").read_text()
    described = re.findall(r"^\| `(\w+)` \| [^|]+\. \|$", text, re.MULTILINE)
    assert sorted(described) == sorted(room for row in rows_of_the_house() for room in row)


TERMS = (
    "candidate, proposal, proposer, candidate pool, mask token, reference mask, prompt, target, no-target prompt, "
    "ground truth, selection threshold, oracle, card, checkpoint, predict path"
)


def test_the_glossary_defines_the_terms_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    defined = re.findall(r"^\| ([^|]+?) \| [^|]+\. \|$", text, re.MULTILINE)
    assert set(TERMS.split(", ")) <= set(defined)
    assert defined == sorted(set(defined))


def test_hooks_have_the_versions_of_constraints() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    hooks = re.findall(r"\[(\w+)==([\w.]+)\]", (ROOT / ".pre-commit-config.yaml").read_text())
    assert len(hooks) == 2
    assert all(pins[name] == version for name, version in hooks)
