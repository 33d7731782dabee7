"""Proposers by name or config, and the hash that names them."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.proposers import loading
from maskselect.proposers.loading import identify_proposer, load_proposer
from maskselect.proposers.precomputed import proposer_hash

SAM = {"class_path": "maskselect.proposers.sam.SamProposer", "init_args": {"checkpoint": "sam", "points_per_side": 2}}


def config(folder: Path, content: Any) -> str:
    path = folder / "proposer.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_hash_of_what_is_stored_already_does_not_change(tmp_path: Path) -> None:
    """Written down by `sha256sum` of the configuration's JSON and the file behind it."""
    (tmp_path / "weights.pth").write_bytes(b"weights")
    assert proposer_hash({"a": 1}, tmp_path / "weights.pth") == "979bae242e39"
    assert proposer_hash({"a": 1}) == "f9d86028c6e0"


def test_weights_are_hashed_in_pieces(tmp_path: Path) -> None:
    path, size = tmp_path / "weights.pth", 32 << 20
    path.write_bytes(bytes(range(256)) * (size // 256))
    expected = hashlib.sha256(b'{"a": 1}' + path.read_bytes()).hexdigest()[:12]
    tracemalloc.start()
    try:
        assert proposer_hash({"a": 1}, path) == expected
        assert tracemalloc.get_traced_memory()[1] < size / 8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("by_name", [True, False])
def test_the_hash_is_had_without_the_proposer(by_name: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "sam" if by_name else config(tmp_path, SAM)
    identity = load_proposer(asked, "cpu")[1]
    told = {"class_path": SAM["class_path"]} if by_name else SAM
    assert identity == proposer_hash(told, find_checkpoint("sam"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the proposer was made")

    monkeypatch.setattr(loading, "build", refuse)
    monkeypatch.setattr(loading, "SamProposer", refuse)
    assert identify_proposer(asked) == identity


@pytest.mark.parametrize("ask", [identify_proposer, lambda name: load_proposer(name, "cpu")])
def test_what_is_wrong_is_told_in_one_sentence(ask: Any, tmp_path: Path) -> None:
    for content, error, told in (
        ({"init_args": {}}, ValueError, "has no class_path"),
        ({"class_path": "maskselect.proposers.sam.Nobody"}, ValueError, "Nobody' does not exist"),
        ({"class_path": "os.system"}, ValueError, "not part of maskselect"),
        ({**SAM, "init_args": {"points": 3}}, ValueError, r"proposer\.yaml do not fit SamProposer: .*'points'"),
        ({**SAM, "init_args": [3]}, ValueError, r"init_args of proposer config .* are \[3\]; expected a mapping"),
        ({**SAM, "init_args": {"checkpoint": "gone"}}, FileNotFoundError, "'gone' not found"),
    ):
        with pytest.raises(error, match=told):
            ask(config(tmp_path, content))
    (tmp_path / "proposer.yaml").write_text("class_path: [")
    with pytest.raises(ValueError, match=r"proposer config .*proposer\.yaml is not valid YAML: "):
        ask(str(tmp_path / "proposer.yaml"))
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml does not exist"):
        ask("gone.yaml")
    with pytest.raises(FileNotFoundError, match="no-such"):
        ask("no-such")


def test_weights_at_any_depth_are_in_the_hash(tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.pth", tmp_path / "model"
    folder.mkdir()
    sam = {"class_path": "maskselect.proposers.sam.SamProposer", "init_args": {"checkpoint": str(weights)}}
    snapping = {"class_path": "maskselect.proposers.snapping.SnappingProposer", "init_args": {"proposer": sam}}
    union = {"class_path": "maskselect.proposers.union.UnionProposer", "init_args": {"proposers": [snapping]}}
    hub = {"class_path": "maskselect.proposers.queries.QueryProposer", "init_args": {"model": str(folder)}}
    for number, (config, changed) in enumerate(((snapping, weights), (union, weights), (hub, folder / "model.bin"))):
        path, seen = tmp_path / f"{number}.json", set()
        path.write_text(json.dumps(config))
        for content in (b"one", b"two"):
            changed.write_bytes(content)
            seen.add(identify_proposer(str(path)))
        assert len(seen) == 2
