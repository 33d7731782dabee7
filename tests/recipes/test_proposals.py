"""Proposals of a data set: any source, any engine, any interruption give the same rows."""

import io
import json
import multiprocessing
import os
import pickle
import pty
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.backends.optional import installing
from maskselect.cli.program import main
from maskselect.proposers.proposal_rows import ProposalRows, shards_of
from maskselect.proposers.store import INDEX, ProposalStore, content_key
from maskselect.recipes.engine import STATE, Record, run
from maskselect.recipes.image_sources import FolderImages, ImageSource, open_images
from maskselect.recipes.proposals import ERRORS, ProposalWorker, Proposed, _message, propose_images
from maskselect.structures.masks import MaskSet

ROOT = Path(__file__).resolve().parents[2]
HASH = "0123456789ab"


class Thresholds:
    """Masks of what is brighter than some values; as many as the first pixel says."""

    def __init__(self, pause: float = 0.0, notes: Path | None = None, key: str = HASH) -> None:
        self.pause, self.notes, self.key = pause, notes, key

    def cache_key(self) -> str:
        return self.key

    def propose(self, image: np.ndarray) -> MaskSet:
        if self.notes is not None:
            with (self.notes / str(os.getpid())).open("a") as file:
                file.write("x")
        time.sleep(self.pause)
        levels = [40.0 * (step + 1) for step in range(int(image[0, 0, 0]) % 4)]
        masks = torch.stack([torch.from_numpy(image[..., 1] > level) for level in levels]) if levels else None
        if masks is None:
            return MaskSet.empty((image.shape[0], image.shape[1]), "thresholds")
        return MaskSet(masks, torch.tensor(levels) / 255, "thresholds", {"level": torch.tensor(levels)})


class Maker:
    """A maker of them in whatever process."""

    def __init__(self, name: str = HASH, pause: float = 0.0, notes: Path | None = None) -> None:
        self.name, self.pause, self.notes = name, pause, notes

    def open(self) -> Thresholds:
        return Thresholds(self.pause, self.notes, self.name)

    def identity(self) -> str:
        return self.name


def pictures(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        array = rng.integers(0, 256, (8 + number % 3, 10, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{number:04d}.png")
    return folder


def rows(folder: Path) -> dict[str, Record]:
    """All rows by key; each key once."""
    found = [row for file in shards_of(folder) for row in pq.read_table(file).to_pylist()]
    assert len({row["key"] for row in found}) == len(found)
    return {row["key"]: row for row in found}


def errors(folder: Path) -> dict[str, str]:
    table = pq.read_table(folder / ERRORS)
    return dict(zip(*(table.column(name).to_pylist() for name in ("key", "reason")), strict=True))


def propose(images: ImageSource | Path, folder: Path, **more: Any) -> Proposed:
    source = FolderImages(images) if isinstance(images, Path) else images
    arguments: dict[str, Any] = {"maker": Maker(), "per_shard": 3} | more
    return propose_images(source, arguments.pop("maker"), folder, **arguments)


def test_a_folder_gives_a_row_an_image_that_the_reader_finds(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 10)
    made = propose(images, tmp_path / "out")
    assert (made.done, made.there, made.failed) == (10, 0, {})
    assert [len(pq.read_table(file)) for file in shards_of(tmp_path / "out")] == [3, 3, 3, 1]
    reader, total = ProposalStore(tmp_path / "out"), 0
    for path in sorted(images.iterdir()):
        array = np.asarray(Image.open(path))
        expected, found = Thresholds().propose(array), reader.find(HASH, content_key(array))
        assert found is not None and found.image_size == expected.image_size
        assert torch.equal(found.masks, expected.masks) and torch.equal(found.scores, expected.scores)
        assert found.source == "thresholds" and found.columns.keys() >= expected.columns.keys()
        total += len(found)
    assert made.masks == total / 10 > 0
    assert (tmp_path / "out" / INDEX).is_file() and not (tmp_path / "out" / ERRORS).exists()


def in_tars(images: Path, folder: Path) -> Path:
    """WebDataset shards of the same pictures, each with a text and a mask beside it."""
    folder.mkdir()
    for number, paths in enumerate((sorted(images.iterdir())[:6], sorted(images.iterdir())[6:])):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as packed:
            for path in paths:
                for suffix, data in (("mask.png", b"mask"), ("txt", b"a text"), ("png", path.read_bytes())):
                    info = tarfile.TarInfo(f"./{path.stem}.{suffix}")
                    info.size = len(data)
                    packed.addfile(info, io.BytesIO(data))
    return folder


def in_parquet(images: Path, folder: Path, nested: bool, keys: bool = True) -> Path:
    folder.mkdir()
    paths = sorted(images.iterdir())
    for number, part in enumerate((paths[:7], paths[7:])):
        data = [path.read_bytes() for path in part]
        column = [{"bytes": one, "path": None} for one in data] if nested else data
        columns = {"image": column, "text": ["a text"] * len(part)}
        if keys:
            columns["image_id"] = [path.stem for path in part]
        pq.write_table(pa.table(columns), folder / f"train-{number}.parquet", row_group_size=2)
    return folder


def test_bad_images_are_listed_and_the_run_goes_on(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 6)
    (images / "0001.png").write_text("no image")
    (images / "0003.png").write_bytes((images / "0002.png").read_bytes()[:-60])
    (images / "0004.png").write_bytes(b"")
    made = propose(images, tmp_path / "out")
    assert (made.done, sorted(rows(tmp_path / "out"))) == (3, ["0000.png", "0002.png", "0005.png"])
    assert errors(tmp_path / "out") == made.failed
    reasons = {"0001.png": "is not an image", "0003.png": "truncated or damaged", "0004.png": "0 bytes"}
    assert made.failed.keys() == reasons.keys()
    assert all(reason in made.failed[key] and "\n" not in made.failed[key] for key, reason in reasons.items())
    for form in (in_tars(images, tmp_path / "tar"), in_parquet(images, tmp_path / "parquet", nested=True)):
        packed = propose(open_images(form), tmp_path / f"{form.name}-out")
        assert packed.done == 3 and packed.failed.keys() == {key.removesuffix(".png") for key in reasons}
        assert all(reason in packed.failed[key.removesuffix(".png")] for key, reason in reasons.items())


def test_what_is_mended_is_proposed_for_and_leaves_the_list(tmp_path: Path) -> None:
    images, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    whole = (images / "0001.png").read_bytes()
    (images / "0001.png").write_text("no image")
    assert propose(images, out).failed.keys() == {"0001.png"}
    before = [file.name for file in shards_of(out)]
    again = propose(images, out, resume=True)
    assert (again.done, again.there, list(again.failed)) == (0, 3, ["0001.png"])
    assert [file.name for file in shards_of(out)] == before and errors(out).keys() == {"0001.png"}
    (images / "0001.png").write_bytes(whole)
    mended = propose(images, out, resume=True)
    assert (mended.done, mended.there, mended.failed) == (1, 3, {})
    assert not (out / ERRORS).exists() and rows(out).keys() == {f"{n:04d}.png" for n in range(4)}
    assert (propose(images, out, resume=True).done, len(shards_of(out))) == (0, 3)


def test_nothing_readable_leaves_the_list_alone(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 2)
    for path in images.iterdir():
        path.write_text("no image")
    assert propose(images, tmp_path / "out").failed.keys() == errors(tmp_path / "out").keys()
    assert not shards_of(tmp_path / "out") and propose(images, tmp_path / "out").done == 0


def test_a_folder_with_shards_is_refused_unless_it_goes_on(tmp_path: Path) -> None:
    images, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    propose(images, out)
    files = {file: file.stat().st_mtime_ns for file in shards_of(out)}
    with pytest.raises(ValueError, match=r"holds 2 shard\(s\) of proposals; expected a folder without, or --resume"):
        propose(images, out)
    with pytest.raises(ValueError, match=f"by proposer '{HASH}', not by 'other'; expected the same one"):
        propose(images, out, maker=Maker("other"), resume=True)
    assert propose(images, out, resume=True) == Proposed(0, 4, 0.0, {})
    assert {file: file.stat().st_mtime_ns for file in shards_of(out)} == files


def test_images_that_were_added_are_all_that_is_made(tmp_path: Path) -> None:
    images, out, notes = pictures(tmp_path / "in", 7), tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    propose(images, out)
    pictures(images, 5, start=7)
    made = propose(images, out, resume=True, maker=Maker(notes=notes))
    assert (made.done, made.there) == (5, 7)
    assert sum(len(path.read_text()) for path in notes.iterdir()) == 5
    propose(images, tmp_path / "at once")
    assert rows(out) == rows(tmp_path / "at once")
    assert ProposalStore(out).find(HASH, content_key(np.asarray(Image.open(images / "0011.png")))) is not None


class Together(Thresholds):
    """Waits until three images are proposed for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(3, timeout=600)

    def propose(self, image: np.ndarray) -> MaskSet:
        self.barrier.wait()
        return super().propose(image)


def test_images_in_flight_give_the_same_rows(tmp_path: Path) -> None:
    class MakerOfThem(Maker):
        def open(self) -> Thresholds:
            return Together()

    images = pictures(tmp_path / "in", 12)
    propose(images, tmp_path / "one")
    propose(images, tmp_path / "three", maker=MakerOfThem(), workers=3, per_shard=6)
    assert rows(tmp_path / "three") == rows(tmp_path / "one")


def test_a_bad_image_in_flight_is_listed_and_a_bad_proposer_ends_the_run(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 6)
    (images / "0002.png").write_text("no picture")
    made = propose(images, tmp_path / "out", workers=3)
    assert made.done == 5
    assert list(made.failed) == ["0002.png"]

    class Other(Maker):
        def identity(self) -> str:
            return "another"

    worker = ProposalWorker(FolderImages(images), Other(), "another")
    with pytest.raises(ValueError, match="expected the same config and weights"):
        run(worker, FolderImages(images).units(), tmp_path / "bad", "rows", ProposalRows(), {}, in_flight=3)


def test_shards_without_what_was_begun_are_not_overwritten(tmp_path: Path) -> None:
    images, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    propose(images, out)
    before = {file.name: file.read_bytes() for file in shards_of(out)}
    (out / STATE).unlink()
    pictures(images, 1, start=4)
    with pytest.raises(ValueError, match=r"holds 2 shard\(s\), such as .*that build.json there does not know"):
        propose(images, out, resume=True, maker=Maker("other"))
    assert {file.name: file.read_bytes() for file in shards_of(out)} == before


def test_what_failed_before_and_has_no_row_stays_listed(tmp_path: Path) -> None:
    images, more, out = pictures(tmp_path / "in", 3), pictures(tmp_path / "more", 2, start=7), tmp_path / "out"
    (images / "0001.png").write_text("no picture")
    propose(images, out)
    propose(more, out, resume=True)
    assert list(errors(out)) == ["0001.png"]
    pictures(images, 2)
    propose(images, out, resume=True)
    assert not (out / ERRORS).exists()


# Kills.


def test_a_kill_at_any_moment_and_going_on_gives_the_same_rows(tmp_path: Path) -> None:
    """Processes that are killed after a random time, over and over until one comes to the end."""
    images, out = pictures(tmp_path / "in", 40), tmp_path / "out"
    (images / "0007.png").write_text("no image")
    propose(images, tmp_path / "at once")
    rng, killed = random.Random(0), 0
    fork = multiprocessing.get_context("fork")
    for turn in range(200):
        before = len(shards_of(out))
        more = {"resume": turn > 0, "maker": Maker(pause=0.02)}  # 0.8 s in all
        process = fork.Process(target=propose, args=(images, out), kwargs=more)
        process.start()
        if turn % 2:  # so that it comes to an end on the slowest machine
            until(lambda before=before, process=process: len(shards_of(out)) > before or process.exitcode is not None)
        process.join(rng.uniform(0.0, 0.05))
        if process.exitcode is None:
            process.kill()
            process.join()
        for file in shards_of(out):
            assert pq.read_table(file).num_rows <= 3  # whole, whenever it was
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    assert process.exitcode == 0 and killed
    assert rows(out) == rows(tmp_path / "at once") and errors(out) == errors(tmp_path / "at once")
    assert left(out) == left(tmp_path / "at once")


def left(folder: Path) -> list[str]:
    """All files but for the engine's notes."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")


@pytest.mark.parametrize("moment", ["_publish", "forget", "write_index", "clear_leftovers"])
def test_stopped_between_the_last_image_and_the_end(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, with an image that fails each time it is tried: rows and files are those of one whole run."""
    images, out = pictures(tmp_path / "in", 5), tmp_path / "out"
    (images / "0002.png").write_text("no image")
    propose(images, tmp_path / "at once")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for turn in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(f"maskselect.recipes.proposals.{moment}", stop)
            try:
                propose(images, out, resume=turn > 0)
            except KeyboardInterrupt:
                continue
    propose(images, out, resume=True)
    assert rows(out) == rows(tmp_path / "at once") and errors(out) == errors(tmp_path / "at once")
    assert left(out) == left(tmp_path / "at once")


def test_killed_before_the_first_shard_a_run_starts_anew(tmp_path: Path) -> None:
    images, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=propose, args=(images, out), kwargs={"maker": Maker("other", pause=3600)}
    )
    process.start()
    until((out / STATE).is_file)
    process.kill()
    process.join()
    assert propose(images, out).done == 4


def until(true: Callable[[], bool]) -> None:
    """Waits. The limit is no claim about speed: it ends a test that would hang."""
    end = time.monotonic() + 900
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


COMMAND = """
import sys
from maskselect.recipes import proposals
from tests.recipes.test_proposals import Maker
proposals.NamedProposer = lambda name, device: Maker(pause=0.02)
from maskselect.cli.program import main
sys.exit(main(["propose", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_the_command_killed_and_resumed_gives_the_same_rows(tmp_path: Path) -> None:
    images, out = pictures(tmp_path / "in", 60), tmp_path / "out"
    propose(images, tmp_path / "at once")
    words = [sys.executable, "-c", COMMAND, "--images", images, "--output", out, "--per-shard", "4", "--resume"]
    rng, killed = random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        before = len(shards_of(out))
        until(lambda before=before, process=process: len(shards_of(out)) > before or process.poll() is not None)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert len(shards_of(out)) > before
        if process.returncode == 0:  # this test was held up for longer than the rest of the run took
            break
    assert killed
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "images done" in done.stdout and rows(out) == rows(tmp_path / "at once")


# Ray.


@pytest.mark.slow
def test_ray_gives_the_same_rows(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 14)
    (images / "0005.png").write_text("no image")
    here = propose(images, tmp_path / "here")
    there = propose(images, tmp_path / "ray", engine="ray", workers=2)
    assert here == there and rows(tmp_path / "here") == rows(tmp_path / "ray")
    assert errors(tmp_path / "here") == errors(tmp_path / "ray")
    pictures(images, 2, start=14)
    assert propose(images, tmp_path / "here", resume=True, engine="ray").done == 2


@pytest.mark.slow
def test_a_worker_of_ray_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    images, notes = pictures(tmp_path / "in", 60), tmp_path / "notes"
    notes.mkdir()
    propose(images, tmp_path / "here")
    killed: list[int] = []

    def kill() -> None:
        """The first worker that has come into its second shard."""
        until(lambda: any(len(path.read_text()) >= 5 for path in notes.iterdir()))
        killed.append(next(int(path.name) for path in notes.iterdir() if len(path.read_text()) >= 5))
        os.kill(killed[0], signal.SIGKILL)

    watcher = threading.Thread(target=kill)
    watcher.start()
    maker = Maker(pause=0.05, notes=notes)
    made = propose(images, tmp_path / "ray", engine="ray", workers=2, maker=maker)
    watcher.join()
    assert killed and killed[0] != os.getpid() and len(list(notes.iterdir())) >= 3  # another took its place
    assert made.done == 60 and rows(tmp_path / "ray") == rows(tmp_path / "here")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of one machine that runs already, begun elsewhere: its address and token, as environment variables.

    It is ended by its own process: `ray stop` would end those of others too.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: the names of its sockets may not be long
        words = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--node-ip-address", "127.0.0.1"]
        words += ["--port", address.rpartition(":")[2], "--num-cpus", "2", "--include-dashboard", "false"]
        words += ["--disable-usage-stats", "--temp-dir", folder]
        log = tmp_path / "head.log"
        with log.open("w") as file:
            head = subprocess.Popen(words, cwd=folder, env=os.environ | own, stdout=file, stderr=subprocess.STDOUT)
        try:
            until(lambda: "runtime started" in log.read_text() or head.poll() is not None)
            assert head.poll() is None, log.read_text()
            yield own | {"RAY_ADDRESS": address, "CLUSTER_FOLDER": folder}
        finally:
            head.terminate()
            head.wait(600)


@pytest.mark.slow
def test_a_cluster_that_runs_already_gives_the_same_rows(tmp_path: Path, cluster: dict[str, str]) -> None:
    """The shipped SAM by a config whose checkpoint is told from the folder in which the command is given."""
    images = pictures(tmp_path / "in", 5)
    (images / "0003.png").write_text("no image")
    checkpoint = find_checkpoint("sam")
    for file in (checkpoint, checkpoint.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    told = {"checkpoint": "sam.safetensors", "points_per_side": 2, "pred_iou_thresh": 0.0}
    config = {"class_path": "maskselect.proposers.sam.SamProposer", "init_args": told}
    (tmp_path / "proposer.json").write_text(json.dumps(config))
    words = [sys.executable, ROOT / "tools" / "propose.py", "--images", "in", "--proposer", "proposer.json"]
    words += ["--per-shard", "2", "--output"]
    for name, more in (("here", []), ("there", ["--engine", "ray", "--workers", "2"])):
        done = subprocess.run(
            [*words, name, *more], cwd=tmp_path, env=os.environ | cluster, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and done.stdout.startswith("4 images done"), done.stderr
    assert sum(len(row["masks"]) for row in rows(tmp_path / "here").values()) > 0
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    assert errors(tmp_path / "there").keys() == errors(tmp_path / "here").keys() == {"0003.png"}
    assert list(Path(cluster["CLUSTER_FOLDER"]).glob("session_*/logs/python-core-driver-*"))  # it was this cluster


# What is refused, and what is told.


def test_a_worker_with_another_proposer_is_refused(tmp_path: Path) -> None:
    """As on a machine with other weights: the worker arrives without the proposer, and opens its own."""
    images = FolderImages(pictures(tmp_path / "in", 1))
    worker = ProposalWorker(images, Maker("another"), HASH, Thresholds())
    assert worker.build({"key": "0000.png"}).counts["images"] == 1  # the one that it was given
    copy = pickle.loads(pickle.dumps(worker))
    with pytest.raises(ValueError, match=f"worker has the key another, that of the run {HASH}; expected the same"):
        copy.build({"key": "0000.png"})


def test_a_run_that_cannot_begin_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    images = pictures(tmp_path / "in", 2)
    status, _, complaint = command(capsys, "--images", images, "--output", tmp_path / "out", "--engine", "ray")
    assert status == 2 and installing("ray") in complaint and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_the_command_shows_how_far_it_is(engine: str, tmp_path: Path) -> None:
    """On a terminal: images done, rate, time left, masks an image."""
    images, (ours, theirs) = pictures(tmp_path / "in", 30), pty.openpty()
    words = ["--images", images, "--output", tmp_path / "out", "--engine", engine, "--per-shard", "5"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120", "TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = read_to_the_end(ours)
    assert process.wait() == 0, shown[-1000:]
    masks = sum(len(row["masks"]) for row in rows(tmp_path / "out").values()) / 30
    states = re.findall(r"Proposing, ([0-9.]+) masks an image \S+ (\d+)/30 ([0-9.]+) images/s (\d:\d\d:\d\d)", shown)
    assert states and states[-1][:2] == (f"{masks:.1f}", "30") and states[-1][3] == "0:00:00", shown[-1000:]
    assert all(0 <= float(rate) <= 50 for _, _, rate, _ in states), states  # each image takes 20 ms


def read_to_the_end(terminal: int) -> str:
    """What a process shows on a terminal, without colours, until it closes it."""
    shown = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # how Linux tells that the other side is closed
            more = b""
        if not more:
            os.close(terminal)
            return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
        shown += more


def test_progress_tells_masks_an_image() -> None:
    assert _message(Counter()) == "Proposing, 0.0 masks an image"
    assert _message(Counter(images=4, masks=30, failed=1)) == "Proposing, 7.5 masks an image"


def command(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    status = main(["propose", *map(str, words)], prog="maskselect")
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskselect.proposers.loading.load_proposer", lambda name, device: Maker().open())
    images, out = pictures(tmp_path / "in", 30), tmp_path / "out"
    for number in range(25):
        (images / f"{number:04d}.png").write_text("no image")
    status, told, complaint = command(capsys, "--images", images, "--output", out)
    assert status == 1 and told.startswith("5 images done, 0 were there already, ")
    assert complaint.count("is not an image") == 20 and "25 images failed, listed in" in complaint
    assert "and 5 more" in complaint and len(errors(out)) == 25
    status, _, complaint = command(capsys, "--images", images, "--output", out)
    assert status == 2 and complaint.count("\n") == 1 and "--resume" in complaint
    scenes = ["--dataset", "scenes", "--split", "val", "--scenes", 3, "--output", tmp_path / "scenes"]
    assert command(capsys, *scenes)[0] == 0 and len(rows(tmp_path / "scenes")) == 3
    for words, told in (
        (["--images", images, "--split", "val"], "--split belongs to --dataset"),
        (["--dataset", "coco", "--root", images], "--dataset coco needs --split"),
        (
            ["--dataset", "own", "--root", images, "--split", "val", "--key-column", "x"],
            "--key-column belongs to --images",
        ),
    ):
        status, _, complaint = command(capsys, *words, "--output", tmp_path / "new")
        assert status == 2 and told in complaint and complaint.count("\n") == 1 and not (tmp_path / "new").exists()
