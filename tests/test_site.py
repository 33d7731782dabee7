"""The site that `make site` builds of `docs/`, the model cards, CITATION.cff and the Dockerfile."""

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import maskselect

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """Reads the name of a Python function in mkdocs.yml as text."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, name, node: name)


def pages_of(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else pages_of(value)


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    listed = list(pages_of(config["nav"]))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for tool in ("zensical", "mkdocstrings"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed; it is in the dependency group dev")
    for name in ("docs", "maskselect"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "outputs" / "site"
    assert (site / "guide" / "quickstart" / "index.html").is_file()
    reference = (site / "guide" / "api" / "index.html").read_text()
    for name in maskselect.__all__:
        assert re.search(rf'id="maskselect\.[\w.]*{name}"', reference), name
    assert "Keep a Changelog" in (site / "changelog" / "index.html").read_text()


def test_the_model_cards_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv/bin/python tools/_write_model_cards.py` writes them."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    module = importlib.import_module("_write_model_cards")
    assert module.PAGE.read_text() == module.page()
    shipped = {path.stem for path in (ROOT / "checkpoints").glob("*.safetensors")}
    assert set(re.findall(r"^## (\w+)$", module.PAGE.read_text(), re.MULTILINE)) == shipped


def test_a_model_card_has_the_figures_of_its_report() -> None:
    section = (DOCS / "models.md").read_text().partition("## ras\n")[2].partition("\n## ")[0]
    overall = json.loads((DOCS / "reports" / "test.json").read_text())["metrics"]["overall"]
    row = next(line for line in section.splitlines() if line.startswith("| `scenes`, `test` |"))
    assert f"| {overall['gIoU']:.1f} | {overall['cIoU']:.1f} |" in row
    assert "0.88" in section and "Apache-2.0" in (DOCS / "models.md").read_text()


def test_the_citation_has_the_version_and_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # required by CFF 1.2.0
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    papers = {one["url"].rpartition("/")[2] for one in citation["references"]}
    assert papers == set(re.findall(r"arxiv.org/abs/([\d.]+)", (ROOT / "README.md").read_text()))


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def test_the_dockerfile_copies_what_the_package_needs() -> None:
    """A folder that `.dockerignore` leaves out may not be part of the wheel."""
    steps = instructions()
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert ("ENTRYPOINT", '["maskselect"]') in steps
    left_out = set((ROOT / ".dockerignore").read_text().split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert not left_out & {*build["packages"], *build["force-include"], "README.md", "LICENSE", "constraints.txt"}
