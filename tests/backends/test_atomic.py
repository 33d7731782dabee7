"""Files and folders appear whole or not at all, under names that no other process has."""

import ast
import multiprocessing
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from maskselect.ops.atomic import (
    atomic_file,
    atomic_files,
    atomic_folder,
    refuse_filled,
    remove_leftovers,
    write_text,
)

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(file for room in ("maskselect", "tools", "benchmarks") for file in (ROOT / room).rglob("*.py"))
EXEMPT = {
    ROOT / "maskselect/ops/atomic.py",
    ROOT / "benchmarks/proposals.py",  # hides an index for a while, to measure without it
    ROOT / "maskselect/importers/llm_seg.py",  # transformers reads a config from a scratch folder
    ROOT / "maskselect/importers/instructseg.py",  # the same
}
WITHIN_FOLDERS = {  # their callers hold a temporary file or folder
    ROOT / "maskselect" / name
    for name in (
        "recipes/engine.py",
        "importers/account.py",
        "importers/llava_folder.py",
        "publishing.py",
        "serving/clips.py",
        "serving/files.py",
    )
}


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o026)
    yield 0o026
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "Maß 龍")

    def interrupted() -> None:
        with atomic_file(path) as part:
            part.write_text("half")
            assert part.parent == tmp_path and path.read_text(encoding="utf-8") == "Maß 龍"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text(encoding="utf-8") == "Maß 龍" and os.listdir(tmp_path) == ["a.txt"]


def test_of_several_files_none_is_there_before_all_are_written(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"

    def write_one() -> None:
        with atomic_files(one, two) as parts:
            parts[0].write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_one()
    assert not os.listdir(tmp_path)
    two.mkdir()
    with pytest.raises(IsADirectoryError, match="two is a folder"), atomic_files(one, two):
        pytest.fail("a folder cannot become a file")
    assert os.listdir(tmp_path) == ["two"]


def test_processes_of_one_number_do_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in two containers, where each is process 1: the first to end takes its own file, not the other's half."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "big.json.index"
    with atomic_file(path) as slow:
        slow.write_text("sl")
        with atomic_file(path) as fast:
            assert fast != slow
            fast.write_text("fast")
        assert path.read_text() == "fast"
        slow.write_text("slow")
    assert path.read_text() == "slow" and os.listdir(tmp_path) == [path.name]


def test_what_is_written_has_the_permissions_that_the_user_asks_for(tmp_path: Path, umask: int) -> None:
    def private(part: Path) -> None:  # as libraries do that write a temporary file of their own
        part.unlink()
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))

    writers = {
        "text": lambda part: part.write_text("text"),
        "tensors": lambda part: save_file({"a": torch.zeros(1)}, part),
        "picture": lambda part: Image.new("L", (2, 2)).save(part, format="PNG"),
        "private": private,
    }
    for name, write in writers.items():
        with atomic_file(tmp_path / name, durable=True) as part:
            write(part)
        assert mode(tmp_path / name) == 0o666 & ~umask, name
    with atomic_folder(tmp_path / "folder") as part:
        (part / "text").write_text("text")
    assert mode(tmp_path / "folder") == 0o777 & ~umask and mode(tmp_path / "folder/text") == 0o666 & ~umask


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")
    write_text(path, "{}")
    assert path.read_text() == "{}"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "above" / "folder"

    def write_half() -> None:
        with atomic_folder(path) as part:
            (part / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not os.listdir(path.parent)
    path.mkdir()
    with atomic_folder(path, durable=True) as part:
        (part / "inner").mkdir()
        (part / "inner" / "file").write_text("whole")
    assert (path / "inner/file").read_text() == "whole" and os.listdir(path.parent) == ["folder"]


def test_a_filled_folder_is_refused_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    write = path / "file"
    path.mkdir()
    write.write_text("old")
    with pytest.raises(ValueError, match="folder is there already"), atomic_folder(path):
        pytest.fail("nothing may be computed for a folder that cannot be written")
    with pytest.raises(ValueError, match="folder is there already"):
        refuse_filled(path)
    with atomic_folder(path, replace=True) as part:
        (part / "other").write_text("new")
        assert write.read_text() == "old"
    assert os.listdir(path) == ["other"] and os.listdir(tmp_path) == ["folder"]


def test_of_two_that_make_one_folder_the_second_does_not_mix_in(tmp_path: Path) -> None:
    path = tmp_path / "folder"

    def write_both() -> None:
        with atomic_folder(path) as slow:
            (slow / "slow").write_text("")
            with atomic_folder(path) as fast:
                (fast / "fast").write_text("")

    with pytest.raises(ValueError, match="folder is there already"):
        write_both()
    assert os.listdir(path) == ["fast"] and os.listdir(tmp_path) == ["folder"]


def _hang(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with atomic_file(path):
        ready.set()
        ready.wait()
        while True:
            pass


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hang, args=(tmp_path / "data-0.jsonl", ready))
    process.start()
    assert ready.wait(60)
    with atomic_file(tmp_path / "data-1.jsonl") as part, atomic_file(tmp_path / "other"):
        remove_leftovers(tmp_path, "data-")
        assert len(os.listdir(tmp_path)) == 3  # all three are at work
        process.kill()
        process.join()
        remove_leftovers(tmp_path, "other")
        assert len(os.listdir(tmp_path)) == 3
        remove_leftovers(tmp_path, "data-")
        assert len(os.listdir(tmp_path)) == 2
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["data-1.jsonl", "other"]


def _faults(path: Path) -> Iterator[str]:
    """Lines of a source file that name or move files around `maskselect.ops.atomic`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr) and "getpid" in (name := ast.unparse(node)) and "/proc/" not in name:
            yield f"{path}:{node.lineno} makes a name of a process id"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if getattr(node, "module", None) == "tempfile" or names & {"mkstemp", "NamedTemporaryFile", "mkdtemp"}:
                yield f"{path}:{node.lineno} makes temporary names of its own"
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of, name = ast.unparse(node.func.value), node.func.attr
        moves = (of, name) in {("os", "replace"), ("os", "rename"), ("os", "renames"), ("shutil", "move")}
        moves |= name in ("rename", "replace") and len(node.args) == 1 and not node.keywords
        if moves or (of, name) in {
            ("tempfile", "mkstemp"),
            ("tempfile", "NamedTemporaryFile"),
            ("tempfile", "mkdtemp"),
        }:
            yield f"{path}:{node.lineno} moves or names files: {of}.{name}"
        writes = name in ("write_text", "write_bytes")
        writes |= name == "open" and any(isinstance(a, ast.Constant) and "w" in str(a.value) for a in node.args[:1])
        if writes and not of.endswith("part") and path not in WITHIN_FOLDERS and ROOT / "maskselect" in path.parents:
            yield f"{path}:{node.lineno} writes in place: {of}.{name}"


def test_every_file_is_written_by_this_module() -> None:
    assert len(SOURCES) > 200
    assert [fault for file in SOURCES if file not in EXEMPT for fault in _faults(file)] == []


def test_the_check_above_sees_what_it_forbids(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    lines = ["a = f'.{n}.{os.getpid()}.part'", "os.replace(a, b)", "part.replace(b)", "tempfile.mkstemp()"]
    source.write_text("\n".join([*lines, "'a'.replace(b, c)"]))
    assert sorted(fault.split(":")[1].split()[0] for fault in _faults(source)) == ["1", "2", "3", "4"]
