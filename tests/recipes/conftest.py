"""Fixtures of recipes."""

from pathlib import Path

import pytest

from tests.recipes.llm_seg40k_world import World, write_ego, write_lvis


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MASKSELECT_INDEX", str(tmp_path / "indexes"))
    write_lvis(tmp_path / "lvis")
    write_ego(tmp_path / "ego")
    return World(tmp_path)
