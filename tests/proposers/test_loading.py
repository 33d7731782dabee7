"""Proposers by name or config, and the key of their candidates."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskselect.backends.checkpoints import find_checkpoint
from maskselect.proposers.loading import identify_proposer, load_proposer
from maskselect.proposers.store import proposer_key
from maskselect.systems.loading import load_system

SAM = {"class_path": "maskselect.proposers.sam.SamProposer", "init_args": {"checkpoint": "sam", "points_per_side": 2}}


def config(folder: Path, content: Any) -> str:
    path = folder / "proposer.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_key_is_had_without_the_proposers_device(by_name: bool, tmp_path: Path) -> None:
    on_gpu = {**SAM, "init_args": {**SAM["init_args"], "device": "cuda"}}
    made = load_proposer("sam" if by_name else config(tmp_path, SAM), "cpu")
    assert identify_proposer("sam" if by_name else config(tmp_path, on_gpu)) == proposer_key(made)


def test_a_system_stands_for_its_proposer(tmp_path: Path) -> None:
    system, _ = load_system("ras")
    assert identify_proposer("ras") == proposer_key(system.proposer) != identify_proposer("sam")
    for suffix in (".safetensors", ".json"):
        shutil.copy(find_checkpoint("sam").with_suffix(suffix), tmp_path)
    card = {"system": "ras", "config": {"class_path": "x", "init_args": {"proposer": SAM}}}
    text = json.dumps(card).replace('"sam"', '"{beside}/sam.safetensors"')
    (tmp_path / "own.safetensors").touch()
    (tmp_path / "own.json").write_text(text)
    assert identify_proposer(str(tmp_path / "own.safetensors")) == identify_proposer(config(tmp_path, SAM))


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
