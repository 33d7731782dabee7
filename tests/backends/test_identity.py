"""Identities: every setting and every weight counts, at any depth; where it is computed does not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from maskselect.backends.identity import identity
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.position import SinusoidEncoder
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.snapping import SnappingProposer
from maskselect.systems.preparing import fingerprint
from tests.systems.tiny import tiny_ras


def _proposer(**settings: Any) -> SnappingProposer:
    torch.manual_seed(0)  # random weights
    side = settings.pop("side", 256)
    return SnappingProposer(SamProposer(**{"points_per_side": 4, "model_type": "compact"} | settings), side=side)


SETTINGS: list[dict[str, Any]] = [
    {"points_per_side": 5},
    {"pred_iou_thresh": 0.1},
    {"stability_score_offset": 0.9},
    {"stability_score_thresh": 0.5},
    {"mask_nms_thresh": 0.7},
    {"mode": "exact"},
    {"crop_n_layers": 1},
    {"side": 128},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s)))
def test_every_setting_of_a_nested_proposer_counts(settings: dict[str, Any]) -> None:
    assert identity([_proposer()]) == identity([_proposer()])
    assert identity([_proposer(**settings)]) != identity([_proposer()])


def test_settings_of_encoders_within_an_ensemble_count() -> None:
    low, high = (EncoderEnsemble([SinusoidEncoder(highest=highest)]) for highest in (8.0, 16.0))
    assert identity([low]) != identity([high])


def test_one_more_channel_of_pooled_features_counts() -> None:
    assert fingerprint(tiny_ras(proposal_score=True)) != fingerprint(tiny_ras(proposal_score=False))


@pytest.mark.parametrize("change", [{"scale": 2.0}, {"grid": [1, 3]}, {"table": np.arange(4)}])
def test_values_of_all_kinds_count(change: dict[str, Any]) -> None:
    def part(**values: Any) -> SinusoidEncoder:
        made = SinusoidEncoder()
        vars(made).update({"scale": 1.0, "grid": [1, 2], "table": np.arange(3)} | values)
        return made

    assert identity([part()]) == identity([part()])
    assert identity([part(**change)]) != identity([part()])


def test_weights_count_and_devices_do_not() -> None:
    layer = nn.Linear(2, 2)
    before = identity([layer])
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert identity([layer]) != before
    first, second = SinusoidEncoder(), SinusoidEncoder()
    first.place, second.place = torch.device("cpu"), torch.device("meta")  # type: ignore[assignment]
    assert identity([first]) == identity([second])


def test_parts_that_hold_one_another_come_to_an_end() -> None:
    one, two = SinusoidEncoder(), SinusoidEncoder()
    vars(one)["other"], vars(two)["other"] = two, one
    assert identity([one]) == identity([one])
