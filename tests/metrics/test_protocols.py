from dataclasses import replace

import numpy as np
import pytest
import torch

from maskselect.metrics.protocols import ALL, CORE, PROTOCOLS, Protocol, protocol_named
from maskselect.metrics.referring import ReferringMetrics
from tests.metrics import references as ref
from tests.metrics.grids import CORNER, DOT, EMPTY, FULL, LEFT, NONE, TOP, grid

PIXELS = ("lisa", "sa2va", "reasonseg", "llmseg", "llmseg-1024", "segearth", "muse")


def measured(protocol: str | Protocol, *cases: tuple, **settings: object) -> dict[str, float | None]:
    metrics = ReferringMetrics(protocol=protocol)
    for case in cases:
        metrics.update(*(mask if mask.ndim == 3 else mask[None] for mask in case), **settings)
    return metrics.report()


def block(width: int, height: int, left: int = 0, size: tuple[int, int] = (20, 20)) -> torch.Tensor:
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[:, :height, left : left + width] = True
    return mask


# Spec 3.7, by number.
@pytest.mark.parametrize("name", PROTOCOLS)
def test_1_a_perfect_answer_is_a_hundred_everywhere(name: str) -> None:
    report = measured(name, (LEFT, LEFT, LEFT))
    for measure in set(report) - {"samples", "N-acc"}:
        assert report[measure] == 100.0, measure


@pytest.mark.parametrize("name", PROTOCOLS)
def test_2_both_empty(name: str) -> None:
    expected = {"rmsin": 0.0, "muse": None}  # a sample without a mask on either side has no weight under muse
    assert measured(name, (NONE, NONE))["gIoU"] == expected.get(name, 100.0)
    assert measured(name, (NONE, NONE))["N-acc"] == 100.0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_3_an_answer_of_a_hundred_pixels_where_nothing_was_asked_for(name: str) -> None:
    metrics = ReferringMetrics(protocol=replace(protocol_named(name), side=None))
    metrics.update(block(10, 10), block(10, 10)[:0])
    assert float(metrics.iou) == 0
    assert float(metrics.union) == (0 if name == "gsva-refzom" else 100)
    assert (float(metrics.none_found), float(metrics.none_samples)) == (0, 1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_4_nothing_where_a_hundred_pixels_were_asked_for(name: str) -> None:
    metrics = ReferringMetrics(protocol=replace(protocol_named(name), side=None))
    metrics.update(block(10, 10)[:0], block(10, 10))
    assert (float(metrics.iou), float(metrics.union)) == (0, 100)
    assert (float(metrics.target_found), float(metrics.target_samples)) == (0, 1)


@pytest.mark.parametrize("name", ["maskselect", "reasonseg", "lisa", "gsva"])
def test_5_ignored_pixels_cost_nothing(name: str) -> None:
    assert measured(name, (FULL, LEFT), ignore=~LEFT)["gIoU"] == 100.0
    assert measured(name, (FULL, LEFT), ignore=EMPTY)["gIoU"] == 50.0
    assert measured(name, (TOP, LEFT), ignore=CORNER)["gIoU"] == 0.0


@pytest.mark.parametrize("name", ["grefcoco", "rmsin"])
def test_5_some_protocols_know_no_ignored_pixels(name: str) -> None:
    assert measured(name, (FULL, LEFT), ignore=~LEFT)["gIoU"] == 50.0


def test_8_nciou_is_ciou_where_all_images_are_of_the_canvas() -> None:
    pairs = [tuple(torch.rand(1, 1024, 1024) > 0.5 for _ in range(2)) for _ in range(2)]
    report = measured("maskselect", *pairs)
    assert report["ncIoU"] == report["cIoU"]


def test_10_a_wrong_rejection_keeps_its_pixels_in_the_union() -> None:
    metrics = ReferringMetrics(protocol=replace(protocol_named("grefcoco"), side=None))
    metrics.update(block(10, 4), block(6, 10, left=12), predicted_none=True)
    assert (float(metrics.intersection), float(metrics.union)) == (0, 100)


# 4 x 4, counted by hand: (answer, truth) to intersection and union.
HAND = [(LEFT, TOP, 4, 12), (CORNER, FULL, 4, 16), (DOT, EMPTY, 0, 1), (EMPTY, TOP, 0, 8), (EMPTY, EMPTY, 0, 0)]


@pytest.mark.parametrize(("answer", "truth", "inter", "union"), HAND)
def test_counts_by_hand(answer: torch.Tensor, truth: torch.Tensor, inter: int, union: int) -> None:
    expected = {"lisa": inter / (union + 1e-5) if union else 1, "rmsin": inter / union if union else 0}
    for name, iou in expected.items():
        metrics = ReferringMetrics(protocol=replace(protocol_named(name), side=None))
        metrics.update(answer[None], truth[None])
        assert (int(metrics.intersection), int(metrics.union)) == (inter, union)
        assert float(metrics.iou) == pytest.approx(iou, abs=1e-12)


def test_four_samples_by_hand() -> None:
    cases = [(LEFT, TOP), (CORNER, FULL), (NONE, NONE), (DOT, NONE)]
    ours = measured("maskselect", *cases)
    assert ours["gIoU"] == round(100 * (4 / 12 + 4 / 16 + 1 + 0) / 4, 2)
    assert ours["cIoU"] == round(100 * 8 / (12 + 16 + 0 + 1), 2)
    rmsin = measured(replace(protocol_named("rmsin"), side=None), *cases)
    assert rmsin["mIoU"] == rmsin["gIoU"] == round(100 * (4 / 12 + 4 / 16) / 4, 2)
    assert measured("gsva-refzom", *cases)["cIoU"] == round(100 * 8 / 28, 2)
    assert measured("lisa", *cases)["gIoU"] == ours["gIoU"]


def test_pr_at_its_limit_and_its_share() -> None:
    cases = [(LEFT, FULL), (NONE, NONE)]  # an IoU of 0.5, and a right rejection
    shares = {
        name: measured(replace(protocol_named(name), side=None), *cases)["Pr@0.5"] for name in ("rmsin", "segearth")
    }
    assert shares == {"rmsin": 50.0, "segearth": 50.0}  # 0.5 of the first; the empty union of the second
    assert measured("maskselect", *cases)["Pr@0.5"] == 100.0
    assert measured(replace(protocol_named("maskselect"), strict=True), *cases)["Pr@0.5"] == 0.0


def test_fifty_pixels_say_something() -> None:
    rule = replace(protocol_named("grefcoco"), side=None)
    target = block(10, 10)
    for pixels, found in ((49, 0.0), (50, 100.0)):
        answer = torch.zeros(1, 400, dtype=torch.bool)
        answer[:, :pixels] = True
        assert measured(rule, (answer.view(1, 20, 20), target))["T-acc"] == found
    assert measured(rule, (block(1, 1), target), predicted_none=False)["T-acc"] == 100.0  # a decision outweighs pixels


def test_gsva_takes_true_masks_without_pixels_for_none() -> None:
    assert measured("gsva", (NONE, EMPTY))["N-acc"] == 100.0
    assert measured("maskselect", (NONE, EMPTY))["N-acc"] is None


def test_muse_pairs_masks_one_to_one() -> None:
    right = ~LEFT
    both = torch.stack([LEFT, right])
    assert measured("muse", (torch.stack([right, LEFT]), both))["gIoU"] == 100.0
    report = measured("muse", (torch.stack([LEFT, CORNER, DOT]), both))  # 1, nothing shared, and one too many
    assert report["gIoU"] == round(100 / 3, 2)
    assert report["cIoU"] == round(100 * 8 / (8 + 8 + 4 + 1), 2)
    assert measured("muse", (both, both), (NONE, NONE))["gIoU"] == 100.0


def test_muse_weighs_an_image_by_its_larger_number_of_masks() -> None:
    both = torch.stack([LEFT, ~LEFT])
    report = measured("muse", (LEFT, LEFT), (torch.stack([TOP, TOP & LEFT, DOT]), both))
    # IoU 1 of 1 mask; of 3 masks LEFT-TOP 4 / 12 and nothing with TOP & LEFT, or 4 / 8 and TOP with ~LEFT 4 / 12.
    assert report["gIoU"] == round(100 * (1 + 4 / 8 + 4 / 12 + 0) / (1 + 3), 2)


def test_sa2va_has_no_epsilon_in_the_count() -> None:
    values = {}
    for name in ("lisa", "sa2va"):
        metrics = ReferringMetrics(protocol=name)
        metrics.update(FULL[None], FULL[None])
        values[name] = float(metrics.compute()["gIoU"])
    assert values["sa2va"] == 16 / (16 + 1e-5)
    assert values["lisa"] == pytest.approx(16 / (16 + 1e-5) / (1 + 1e-5), abs=1e-12)


def test_acc_at_half_goes_through_boxes() -> None:
    ring = grid("####", "#..#", "#..#", "####")
    report = measured(
        replace(protocol_named("maskselect"), measures=ALL), (ring, FULL), (EMPTY, FULL), (DOT, DOT), (NONE, NONE)
    )
    assert report["Acc@0.5"] == round(100 / 3, 2)  # the ring; a box of one pixel has no area, and is wrong


def test_the_recall_curve_counts_targets() -> None:
    targets, pool = torch.stack([FULL, LEFT, EMPTY]), torch.stack([TOP, CORNER, grid("####", "####", "####", "....")])
    report = measured(replace(protocol_named("maskselect"), measures=ALL), (NONE, targets, pool), (NONE, NONE, pool))
    # FULL is met by 12 of 16, LEFT by 4 of 8; a target without a pixel is no target.
    assert [report[f"recall@{limit}"] for limit in (0.5, 0.55, 0.75, 0.8)] == [100.0, 50.0, 50.0, 0.0]
    assert report["recall@.5:.95"] == round(100 * (2 + 5 * 1) / 20, 2)
    assert measured("lisa", (NONE, targets, NONE))["recall@0.5"] == 0.0
    assert measured("lisa", (NONE, targets))["recall@0.5"] is None


def test_a_candidate_serves_one_target_in_matched_recall() -> None:
    wide, narrow = block(10, 10), block(8, 10)  # IoU 0.8 of each other
    targets = torch.cat([wide, narrow])
    report = measured("lisa", (NONE[:, :1, :1].new_zeros(0, 20, 20), targets, wide))
    assert (report["recall@0.5"], report["matched_recall@0.5"]) == (100.0, 50.0)
    assert (report["recall@0.85"], report["matched_recall@0.85"]) == (50.0, 50.0)
    # The first candidate takes the target that it meets best, which leaves the second nothing at 0.85.
    pool = torch.cat([block(9, 10), wide])
    assert measured("lisa", (wide[:0], targets, pool))["matched_recall@0.85"] == 50.0
    metrics = ReferringMetrics(protocol="lisa")
    metrics.update(wide[:0], wide, torch.cat([narrow, wide]), candidate_scores=torch.tensor([0.1, 0.9]))
    assert metrics.report()["matched_recall@0.95"] == 100.0


def test_matched_recall_is_cocos_ar() -> None:
    rng = np.random.default_rng(3)
    cases = []
    for _ in range(12):
        size, kinds = (24, 24), (int(rng.integers(0, 6)), int(rng.integers(0, 9)))
        corners = [[rng.integers(0, 4, (n, 2)), rng.integers(18, 24, (n, 2))] for n in kinds]
        masks = [np.zeros((n, *size), bool) for n in kinds]
        for some, (low, high) in zip(masks, corners, strict=True):
            for mask, (y, x), (bottom, right) in zip(some, low, high, strict=True):
                mask[y:bottom, x:right] = True  # much overlap, so that one candidate meets several targets
        cases.append(ref.Case(masks[1][:0], masks[0], masks[1], np.zeros(size, bool), False))
    metrics = ReferringMetrics(protocol=replace(protocol_named("maskselect"), measures=ALL))
    for case in cases:
        metrics.update(*case.tensors()[:3])
    got = {name: float(value) for name, value in metrics.compute().items()}
    expected = ref.average_recall(cases)
    for limit, value in expected.items():
        assert got[f"matched_recall@{limit}"] == pytest.approx(value, abs=1e-12)
    assert got["recall@.5:.95"] > got["matched_recall@.5:.95"] + 0.05


def test_scores_of_candidates_are_one_each() -> None:
    with pytest.raises(ValueError, match=r"candidate_scores must be \(2,\), one a candidate, got \(3,\)"):
        ReferringMetrics().update(NONE, NONE, torch.stack([LEFT, TOP]), candidate_scores=torch.ones(3))


# What a report says of how it came about.
SAID = {
    "maskselect": {"resolution": "each image's own size; ncIoU on 1024 x 1024", "no target": "no true mask"},
    "grefcoco": {"resolution": "480 x 480, stretched", "empty answers": "an answer below 50 pixels"},
    "gsva": {"resolution": "own size", "empty answers": "rejected still counts", "epsilons": "1e-08 joins the union"},
    "gsva-refzom": {"empty answers": "adds nothing to the summed union"},
    "lisa": {"empty answers": "an empty union is IoU 1", "epsilons": "1e-05 joins the number of samples"},
    "sa2va": {"source": "Sa2VA", "epsilons": "1e-05 joins the union of a sample, 1e-10 joins the summed union"},
    "reasonseg": {"ignored pixels": "leave both masks"},
    "llmseg": {"epsilons": "1e-08 joins the union of a sample"},
    "llmseg-1024": {"resolution": "1024 x 1024, stretched, nearest neighbour, source index rounded down"},
    "rmsin": {"resolution": "480 x 480", "empty answers": "an empty union is IoU 0", "epsilons": "none",
              "Pr@X": "IoU >= X, share of all samples", "ignored pixels": "are background"},
    "segearth": {"resolution": "1024 x 1024, letterboxed", "Pr@X": "IoU > X, share of all samples"},
    "muse": {"gIoU": "over max(masks given, masks true) summed over images"},
}  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_protocol_describes_itself(name: str) -> None:
    told = protocol_named(name).describe()
    for key, words in SAID[name].items():
        assert words in told[key], key
    others = [other.describe() for other in PROTOCOLS.values() if other.name != name]
    assert told not in others


def test_a_changed_rule_changes_its_words() -> None:
    rule = protocol_named("lisa")
    changes: dict[str, object] = {
        "side": 64, "strict": True, "ignores": False, "count_epsilon": 0.0, "none_pixels": 7, "share": "all",
        "paired": True, "target_by_pixels": False, "empty_rule": "zero",
    }  # fmt: skip
    for field, value in changes.items():
        assert replace(rule, **{field: value}).describe() != rule.describe(), field


def test_shares_of_true_pixels_are_left_out_where_no_sample_has_a_target() -> None:
    for name in PROTOCOLS:
        report = measured(name, (LEFT, NONE, LEFT))
        assert (report["cIoU"], report["ncIoU"], report["oracle_cIoU"]) == (None, None, None)
        assert measured(name, (LEFT, NONE, LEFT), (LEFT, LEFT, LEFT))["cIoU"] is not None


def test_nciou_and_acc_at_half_do_not_depend_on_the_protocols_canvas() -> None:
    rng = np.random.default_rng(5)
    pairs = [tuple(torch.from_numpy(ref.draw_mask(rng, (37, 90))[None]) for _ in range(2)) for _ in range(40)]
    reports = [measured(replace(protocol_named(name), ignores=False), *pairs) for name in ("lisa", "segearth")]
    assert reports[0]["ncIoU"] == reports[1]["ncIoU"] and reports[0]["Acc@0.5"] == reports[1]["Acc@0.5"]
    assert reports[0]["Pr@0.5"] != reports[1]["Pr@0.5"]


def test_a_share_at_the_limit_is_counted_exactly() -> None:
    for limit, pixels in ((0.55, 11), (0.6, 12), (0.7, 14), (0.85, 17), (0.95, 19)):
        part = (torch.arange(20) < pixels).view(1, 4, 5)
        assert measured("lisa", (part, torch.ones_like(part), part))[f"recall@{limit}"] == 100.0


def test_what_our_own_protocol_names() -> None:
    assert tuple(measured("maskselect", (LEFT, TOP)))[1:] == CORE
    assert tuple(measured("lisa", (LEFT, TOP)))[1:] == ALL


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_a_sample_nothing_is_measured(name: str) -> None:
    report = ReferringMetrics(protocol=name).report()
    assert report.pop("samples") == 0
    assert set(report.values()) == {None}


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"called 'liza'; there are maskselect, grefcoco, gsva"):
        ReferringMetrics(protocol="liza")
    with pytest.raises(ValueError, match=r"ignore must be bool and of the targets' size \(4, 4\), got \(4, 5\)"):
        ReferringMetrics().update(NONE, NONE, ignore=torch.zeros(4, 5, dtype=torch.bool))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_parts_merge_into_the_whole(name: str) -> None:
    rng = np.random.default_rng(0)
    whole, parts = ReferringMetrics(protocol=name), [ReferringMetrics(protocol=name) for _ in range(2)]
    for number in range(6):
        masks = [torch.from_numpy(rng.random((int(rng.integers(0, 3)), 6, 7)) > 0.5) for _ in range(3)]
        whole.update(*masks)
        parts[number % 2].update(*masks)
    parts[0].merge_state(parts[1])
    assert parts[0].report() == pytest.approx(whole.report())


HALF = block(5, 10, size=(10, 10))
SQUARE = torch.ones(1, 10, 10, dtype=torch.bool)
DIFFERENCES = [
    ("gsva-refzom", "gsva", "cIoU", [(SQUARE, SQUARE), (SQUARE, SQUARE[:0])], 100.0, 50.0),
    ("segearth", "rmsin", "Pr@0.5", [(HALF, SQUARE)], 0.0, 100.0),
    ("muse", "lisa", "gIoU", [(SQUARE, torch.cat([HALF, ~HALF]))], 25.0, 100.0),
    ("muse", "lisa", "gIoU", [(SQUARE, torch.cat([HALF, ~HALF])), (SQUARE, SQUARE)], 50.0, 100.0),
    ("llmseg-1024", "llmseg", "cIoU",
     [(SQUARE[:, :8, :8], SQUARE[:, :8, :8]), (block(16, 32, size=(32, 32)), block(32, 32, size=(32, 32)))],
     75.0, 52.94),
]  # fmt: skip


@pytest.mark.parametrize(("name", "other", "measure", "pairs", "value", "other_value"), DIFFERENCES)
def test_where_two_protocols_differ(
    name: str, other: str, measure: str, pairs: list, value: float, other_value: float
) -> None:
    assert [measured(rule, *pairs)[measure] for rule in (name, other)] == [value, other_value]


def test_reasonseg_leaves_out_ignored_pixels() -> None:
    assert measured("reasonseg", (SQUARE, HALF), ignore=~HALF[0])["gIoU"] == 100.0
    assert measured("reasonseg", (SQUARE, HALF))["gIoU"] == 50.0


def test_pixels_alone_ignore_the_decision() -> None:
    for name in (*PIXELS, "rmsin"):
        reports = [measured(name, (LEFT, TOP), predicted_none=said) for said in (True, False)]
        assert reports[0]["gIoU"] == reports[1]["gIoU"]
        assert reports[0]["T-acc"] != reports[1]["T-acc"]
