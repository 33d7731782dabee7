"""The configs of compact InstructSeg: its ablations change what they say, and nothing else of the system."""

from pathlib import Path
from typing import Any

import pytest

from maskselect.backends.building import build
from maskselect.backends.configs import read_configs
from maskselect.backends.weightless import weightless
from maskselect.systems.instructseg import InstructSeg
from tests.training.paper_world import PAPER

CONFIGS = PAPER.parent
FOLDER = CONFIGS / "overlays" / "instructseg"


def system_of(path: Path) -> InstructSeg:
    with weightless():
        system: InstructSeg = build(read_configs([path])["model"]["task"])
    return system


def sizes(system: InstructSeg) -> dict[str, int]:
    parts: dict[str, Any] = dict(system.named_children())
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


@pytest.fixture(scope="module")
def whole() -> InstructSeg:
    return system_of(CONFIGS / "instructseg.yaml")


def test_the_compact_system_fits_into_eight_mib(whole: InstructSeg) -> None:
    assert 2 * sum(tensor.numel() for tensor in whole.learned_state().values()) < 8 * 2**20
    assert whole.perceiver is not None and whole.fusion.readout == "both" and whole.selection == "threshold"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("no_perceiver", "perceiver"),
        ("no_fusion", "fusion"),
        ("key_frame_alone", ""),
        ("eight_frames", ""),
        ("global_text", ""),
        ("detailed_text", "fusion"),
        ("paper_losses", ""),
    ],
)
def test_ablations_change_one_part(whole: InstructSeg, name: str, changed: str) -> None:
    system = system_of(FOLDER / f"{name}.yaml")
    before, after = sizes(whole), sizes(system)
    assert {part for part in before if before[part] != after.get(part)} == ({changed} if changed else set())
    frames = {"key_frame_alone": 0, "eight_frames": 8}.get(name, 4)
    assert system.reference_frames == frames
    assert system.fusion.text == {"global_text": "global", "detailed_text": "detailed"}.get(name, "both")
    loss = system.set_loss
    weights = (1.0, 1.0, 1.0) if name == "paper_losses" else (2.0, 5.0, 5.0)
    assert (loss.class_weight, loss.mask_weight, loss.dice_weight) == weights and loss.points is None
    assert system.text_loss == ("always" if name == "paper_losses" else "replies")


def test_ablations_of_the_data_change_the_rates() -> None:
    rates = {
        name: read_configs([FOLDER / f"{name}.yaml"])["data"]["init_args"]["train"]["init_args"]["rates"]
        for name in ("pictures_only", "clips_only")
    }
    assert rates == {"pictures_only": [1, 0], "clips_only": [0, 1]}
    tested = {"no_perceiver", "no_fusion", "key_frame_alone", "eight_frames", "global_text", "detailed_text"}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == tested | {"paper_losses", *rates}
