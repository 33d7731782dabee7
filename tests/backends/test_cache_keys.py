"""Cache keys: every setting and every weight counts, at any depth; where and how fast it is computed does not."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.encoders.compact import ConvEncoder, VitEncoder
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.position import SinusoidEncoder
from maskselect.lmm.clip_tower import ClipTower
from maskselect.lmm.image_square import CentreCrop, MeanPadding
from maskselect.lmm.native_size import NativeSize
from maskselect.proposers.regions import RegionProposer
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.snapping import SnappingProposer
from maskselect.proposers.union import UnionProposer
from maskselect.structures.protocols import Cacheable
from maskselect.systems.preparing import fingerprint
from maskselect.training.synthetic_candidates import SyntheticCandidates
from tests.systems.tiny import Quarters, tiny_ras


def _proposer(**settings: Any) -> UnionProposer:
    union = {name: settings.pop(name) for name in ("order", "least_area", "most_area") if name in settings}
    snapping = {name: settings.pop(name) for name in ("side", "band", "iterations", "nms_iou") if name in settings}
    return UnionProposer([SnappingProposer(SamProposer(**{"points_per_side": 4} | settings), **snapping)], **union)


SETTINGS: list[dict[str, Any]] = [
    {"points_per_side": 5},
    {"pred_iou_thresh": 0.1},
    {"stability_score_offset": 0.9},
    {"stability_score_thresh": 0.5},
    {"box_nms_thresh": 0.9},
    {"mask_nms_thresh": 0.7},
    {"max_candidates": 7},
    {"min_mask_region_area": 3},
    {"refine": True},
    {"mode": "exact"},
    {"decision_side": 128},
    {"precision": "bfloat16"},
    {"masks_per_point": 1},
    {"crop_n_layers": 1},
    {"side": 128},
    {"band": 4},
    {"iterations": 2},
    {"nms_iou": 0.5},
    {"order": "area"},
    {"least_area": 0.1},
    {"most_area": 0.9},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s)))
def test_every_setting_of_a_nested_proposer_counts(settings: dict[str, Any]) -> None:
    assert _proposer(**settings).cache_key() != _proposer().cache_key()


@pytest.mark.parametrize("settings", [{}, {"points_per_batch": 8}, {"memory_budget_mb": 100}], ids=str)
def test_what_changes_only_speed_and_memory_does_not_count(settings: dict[str, Any]) -> None:
    assert _proposer(**settings).cache_key() == _proposer().cache_key()


def test_weights_of_a_proposer_count() -> None:
    one, other = SamProposer(), SamProposer()
    with torch.no_grad():
        next(other.sam.image_encoder.parameters()).add_(1.0)
    assert one.cache_key() != other.cache_key()


MADE: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (ConvEncoder, {}, {"levels": (3,)}),
    (ConvEncoder, {}, {"interpolation": "bicubic"}),
    (ConvEncoder, {}, {"mean": (0.4, 0.5, 0.5)}),
    (VitEncoder, {}, {"heads": 4}),
    (SinusoidEncoder, {}, {"highest": 8.0}),
    (SinusoidEncoder, {}, {"name": "other"}),
    (ClipTower, {"width": 8, "layers": 1, "heads": 2, "hidden": 8, "image_size": 4, "patch_size": 2}, {"heads": 4}),
    (CentreCrop, {"side": 3}, {"side": 4}),
    (MeanPadding, {"side": 3}, {"side": 4}),
    (
        NativeSize,
        {"min_pixels": 9, "max_pixels": 5000, "patch_size": 14, "merge_size": 2, "frames": 2},
        {"max_pixels": 6000},
    ),
    (RegionProposer, {}, {"sigma": 0.7}),
    (SyntheticCandidates, {}, {"missed": 0.2}),
]


@pytest.mark.parametrize(("kind", "settings", "change"), MADE, ids=lambda value: getattr(value, "__name__", ""))
def test_every_part_states_its_settings(kind: Any, settings: dict[str, Any], change: dict[str, Any]) -> None:
    def made(**arguments: Any) -> Cacheable:
        torch.manual_seed(0)  # random weights
        return kind(**arguments)  # type: ignore[no-any-return]

    assert made(**settings).cache_key() == made(**settings).cache_key()
    assert made(**settings | change).cache_key() != made(**settings).cache_key()


@pytest.mark.parametrize("change", [{"mask_resize": "nearest"}, {"geometry": False}, {"pad_value": 0.5}], ids=str)
def test_settings_of_an_ensemble_and_of_its_encoders_count(change: dict[str, Any]) -> None:
    plain = EncoderEnsemble([SinusoidEncoder()])
    assert EncoderEnsemble([SinusoidEncoder()], **change).cache_key() != plain.cache_key()
    assert EncoderEnsemble([SinusoidEncoder(highest=8.0)]).cache_key() != plain.cache_key()
    half = EncoderEnsemble([VitEncoder(checkpoint="encoder_vit")], dtype="bfloat16")
    assert half.cache_key() != EncoderEnsemble([VitEncoder(checkpoint="encoder_vit")]).cache_key()


def test_one_more_channel_of_pooled_features_counts() -> None:
    assert fingerprint(tiny_ras(proposal_score=True)) != fingerprint(tiny_ras(proposal_score=False))


@dataclass
class Settings:
    scale: float = 1.0


@pytest.mark.parametrize("change", [{"scale": 2.0}, {"grid": [1, 3]}, {"own": Settings(2.0)}, {"inner": {"a": None}}])
def test_values_of_all_kinds_count(change: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"scale": 1.0, "grid": [1, 2], "own": Settings(), "inner": {"a": Quarters()}}
    assert cache_key("Part", **plain) == cache_key("Part", **plain) != cache_key("Other", **plain)
    assert cache_key("Part", **plain | change) != cache_key("Part", **plain)


def test_values_names_and_dtypes_of_weights_count() -> None:
    layer = nn.Linear(2, 2)
    digests = {weights_digest(layer), weights_digest(nn.Sequential(layer)), cache_key("Layer", weights=layer)}
    with torch.no_grad():
        layer.weight[0, 0] += 1
    digests |= {weights_digest(layer), cache_key("Layer", weights=layer), weights_digest(layer.double())}
    assert len(digests) == 6


def test_a_part_without_a_key_is_refused() -> None:
    class Nameless:
        def propose(self, image: object) -> None: ...

    with pytest.raises(TypeError, match="Nameless has no cache_key"):
        fingerprint(tiny_ras(Nameless()))
