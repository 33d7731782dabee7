"""The user's cache folder, wherever and as whoever the program runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskselect.backends.cache import cache_folder, places_beside
from maskselect.ops.paths import expanded


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MASKSELECT_INDEX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a numeric user of a container, who has no passwd entry."""
    import pwd

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("told", [None, "", "relative", "./here"])
def test_the_home_decides_where_nothing_usable_is_told(
    told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", told)
    assert cache_folder() == tmp_path / "home/.cache/maskselect"


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_home(monkeypatch)
    assert cache_folder() is None and expanded("~/file") == Path("~/file")
    assert places_beside(tmp_path / "a.json", ".index", "0") == [tmp_path / "a.json.index"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache/maskselect"


def test_where_things_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    in_cache = tmp_path / "home/.cache/maskselect/index/a.json.0.index"
    assert places_beside(file, ".index", "0") == [tmp_path / "a.json.index", in_cache]
    monkeypatch.setenv("MASKSELECT_INDEX", str(tmp_path / "chosen"))
    assert places_beside(file, ".index", "0") == [tmp_path / "chosen/a.json.0.index"]


@pytest.mark.parametrize(("told", "left"), [("", None), ("relative", None), ("/there", "/there")])
def test_libraries_do_not_write_into_the_working_directory(told: str, left: str | None) -> None:
    """They would join an empty or relative XDG_CACHE_HOME with their own name."""
    command = "import maskselect, os; print(os.environ.get('XDG_CACHE_HOME'))"
    environment = os.environ | {"XDG_CACHE_HOME": told, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(left)


def test_one_place_knows_where_the_cache_is() -> None:
    own = Path(__file__).resolve().parents[2] / "maskselect"
    for file in own.rglob("*.py"):
        if file not in (own / "backends/cache.py", own / "ops/paths.py"):
            assert not any(word in file.read_text() for word in ("XDG_CACHE_HOME", "expanduser", "Path.home"))
