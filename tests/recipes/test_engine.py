"""The engine of the recipes: equal files in process and on Ray, going on where it stopped, refusing what is not its
own."""

import socket
from collections import Counter
from pathlib import Path

import pytest

from maskselect.recipes import ray_jobs
from maskselect.recipes.engine import Built, JsonLines, run


class Squares:
    """Gives the square of each number of a unit, and notes in a folder which units it was asked for."""

    def __init__(self, notes: Path, fails_at: int | None = None) -> None:
        self.notes, self.fails_at = notes, fails_at

    def build(self, unit: dict) -> Built:
        if unit["n"] == self.fails_at:
            raise ValueError(f"unit {unit['n']} cannot be done")
        with (self.notes / str(unit["n"])).open("a") as file:
            file.write("x")
        return Built([{"n": unit["n"], "square": unit["n"] ** 2}], Counter(even=unit["n"] % 2 == 0))


UNITS = [{"n": number} for number in range(10)]
SETTINGS = {"seed": 1}


def build(folder: Path, notes: Path, fails_at: int | None = None, units: list | None = None, **more: object):
    notes.mkdir(exist_ok=True)
    arguments = {"settings": SETTINGS, "per_shard": 3} | more
    return run(Squares(notes, fails_at), units or UNITS, folder, "train", JsonLines(), **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def test_shards_hold_all_units_in_order_and_what_was_counted(tmp_path: Path) -> None:
    files, counts = build(tmp_path / "out", tmp_path / "notes")
    assert [file.name for file in files] == [f"train-0000{k}-of-00004.jsonl" for k in range(4)]
    records = [record for file in files for record in JsonLines.read(file)]
    assert records == [{"n": n, "square": n * n} for n in range(10)]
    assert counts == {"even": 5}


@pytest.mark.slow
def test_ray_makes_the_same_files(tmp_path: Path) -> None:
    _, here = build(tmp_path / "here", tmp_path / "notes")
    _, there = build(tmp_path / "ray", tmp_path / "notes", engine="ray", workers=2)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert here == there
    with pytest.raises(ValueError, match="unit 4 cannot be done"):
        build(tmp_path / "fails", tmp_path / "notes", fails_at=4, engine="ray")


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, notes = tmp_path / "out", tmp_path / "notes"
    with pytest.raises(ValueError, match="unit 7 cannot be done"):
        build(folder, notes, fails_at=7)
    assert sorted(path.name for path in folder.glob("*.jsonl")) == [f"train-0000{k}-of-00004.jsonl" for k in (0, 1)]
    build(folder, notes)
    asked = {path.name: len(path.read_text()) for path in notes.iterdir()}
    assert asked == {str(n): 2 if n == 6 else 1 for n in range(10)}  # 6 stood in the shard that failed
    build(tmp_path / "at once", tmp_path / "more")
    assert contents(folder) == contents(tmp_path / "at once")


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        build(tmp_path / "out", tmp_path / "notes", fails_at=0)
    assert not list((tmp_path / "out").rglob("*.part")) and not list((tmp_path / "out").glob("*.jsonl"))


def test_another_build_in_the_folder_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "out", tmp_path / "notes")
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        build(tmp_path / "out", tmp_path / "notes", settings={"seed": 2})
    with pytest.raises(ValueError, match=r"other settings \(units\)"):
        build(tmp_path / "out", tmp_path / "notes", units=UNITS[:9])


def test_no_units_give_one_empty_shard(tmp_path: Path) -> None:
    files, counts = run(Squares(tmp_path), [], tmp_path / "out", "val", JsonLines(), SETTINGS)
    assert [JsonLines.read(file) for file in files] == [[]] and not counts


def test_a_ray_that_does_not_start_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        stopped = 0

        def is_initialized(self) -> bool:
            return False

        def init(self, **options: object) -> None:
            raise Exception("The current node timed out during startup.\nAnd more.")

        def shutdown(self) -> None:
            self.stopped += 1

    fake = Ray()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_jobs, "require", lambda module, extra: fake)
    with pytest.raises(ValueError, match="Ray does not start on this machine: The current node timed out during start"):
        list(ray_jobs.run_on_ray(lambda part: iter(()), [{}], 1, 0))
    assert fake.stopped


def test_without_ray_the_command_that_helps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match="make setup EXTRAS=ray"):
        build(tmp_path / "out", tmp_path / "notes", engine="ray")


def test_a_cluster_that_does_not_answer_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match=f"no Ray cluster answers at RAY_ADDRESS={address}; expected host:port"):
            build(tmp_path / "out", tmp_path / "notes", engine="ray")
