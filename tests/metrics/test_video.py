from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_jaccard_index

from maskselect.metrics.davis import match, share_out
from maskselect.metrics.video import VideoMetrics, accuracy, boundary_fs, region_j, robustness
from maskselect.metrics.video_protocols import VIDEO_PROTOCOLS, VideoProtocol
from tests.metrics import references as ref
from tests.metrics import video_references as video
from tests.metrics.grids import CORNER, DOT, EMPTY, FULL, LEFT, TOP


def clip(*frames: torch.Tensor) -> torch.Tensor:
    return torch.stack(frames)


def measured(protocol: str | VideoProtocol, *cases: tuple, **settings: object) -> dict[str, float | None]:
    metrics = VideoMetrics(protocol)
    for prediction, target in cases:
        metrics.update(prediction, target, **settings)
    return metrics.report()


# Frames.
def test_j_by_hand() -> None:
    answer, truth = clip(LEFT, EMPTY, DOT, EMPTY), clip(TOP, EMPTY, EMPTY, FULL)
    assert region_j(answer.numpy(), truth.numpy()).tolist() == [4 / 12, 1.0, 0.0, 0.0]


def test_void_pixels_count_nowhere() -> None:
    answer, truth, void = (clip(mask).numpy() for mask in (FULL, LEFT, ~LEFT))
    assert region_j(answer, truth, void).tolist() == [1.0]
    assert boundary_fs(answer, truth, void).tolist() == [1.0]
    assert region_j(answer, truth, clip(FULL).numpy()).tolist() == [1.0]  # nothing is left, and all of it is right


def test_j_is_torchmetrics_jaccard() -> None:
    rng = np.random.default_rng(8)
    for _ in range(1000):
        size = int(rng.integers(1, 20)), int(rng.integers(1, 20))
        a, b = ref.draw_mask(rng, size), ref.draw_mask(rng, size)
        jaccard = binary_jaccard_index(torch.from_numpy(a).int(), torch.from_numpy(b).int(), zero_division=1)
        assert region_j(a[None], b[None])[0] == pytest.approx(float(jaccard), abs=1e-6)


def test_robustness_by_hand() -> None:
    answer, truth = clip(TOP, EMPTY, DOT, FULL).numpy(), clip(LEFT, EMPTY, EMPTY, EMPTY).numpy()
    foreground = clip(FULL, EMPTY, EMPTY, CORNER).numpy()
    # 4 wrong of 16; nothing at all; wrong where there is nothing; 16 wrong of 4.
    assert robustness(answer, truth, foreground).tolist() == pytest.approx([0.75, 1.0, 0.0, 0.0])
    assert robustness(answer, truth, foreground, visa_compat=True).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_accuracy_by_hand() -> None:
    answer, truth = clip(TOP, FULL, EMPTY).numpy(), clip(LEFT, FULL, EMPTY).numpy()
    assert accuracy(answer, truth).tolist() == [0.5, 1.0, 1.0]
    assert accuracy(answer, truth, visa_compat=True).tolist() == [0.25, 0.0, 1.0]  # foreground never agrees


# Expressions.
@pytest.mark.parametrize("name", ["davis-expression", "mevis", "ref-youtube-vos"])
def test_the_mean_over_frames_and_then_over_expressions(name: str) -> None:
    cases = [(clip(LEFT, LEFT), clip(LEFT, ~LEFT)), (clip(FULL), clip(FULL)), (clip(TOP), clip(~TOP))]
    report = measured(name, *cases)
    assert (report["samples"], report["J"]) == (3, 50.0)
    assert report["J&F"] == pytest.approx((report["J"] + report["F"]) / 2, abs=0.006)


def test_only_revos_rounds_each_expression() -> None:
    truth = torch.zeros(1, 3, 3, dtype=torch.bool)
    truth[0, :1] = True  # 1 of 3 right: 33.33 %
    answer = truth.roll(1, 2) & (torch.arange(3) == 1)
    values = {"mevis": 1 / 3, "davis-expression": 1 / 3, "ref-youtube-vos": 1 / 3, "revos": 0.3333}
    for name, value in values.items():
        metrics = VideoMetrics(name)
        metrics.update(answer, truth, foreground=truth)
        assert float(metrics.compute()["J"]) == pytest.approx(value, abs=1e-12)
    assert {name for name, rule in VIDEO_PROTOCOLS.items() if rule.rounded} == {"revos"}


@pytest.mark.parametrize("name", ["mevis", "davis-expression"])
def test_expressions_agree_with_visas_evaluator(name: str) -> None:
    rng = np.random.default_rng(12)
    clips = [tuple(ref.draw_clip(rng, 2, 3, (9, 11))) for _ in range(12)]
    metrics = VideoMetrics(name)
    for answer, truth in clips:
        metrics.update(torch.from_numpy(answer), torch.from_numpy(truth))
    got = {key: float(value) for key, value in metrics.compute().items()}
    assert got == pytest.approx(video.expressions(clips), abs=1e-12)


# ReVOS.
def test_referring_and_reasoning_weigh_the_same() -> None:  # spec 3.7, number 9
    metrics = VideoMetrics("revos")
    metrics.update(clip(LEFT), clip(LEFT), foreground=clip(LEFT), group=0)
    for _ in range(9):
        metrics.update(clip(LEFT), clip(~LEFT), foreground=clip(FULL), group=1)
    metrics.update(clip(LEFT), clip(~LEFT), foreground=clip(FULL), group=2)  # left out
    report = metrics.report()
    assert (report["samples"], report["J"], report["J referring"], report["J reasoning"]) == (10, 50.0, 100.0, 0.0)
    assert report["R"] == pytest.approx((100 + 50) / 2)


def test_a_group_that_holds_nothing_does_not_weigh() -> None:
    metrics = VideoMetrics("revos")
    metrics.update(clip(LEFT), clip(LEFT), foreground=clip(LEFT), group=1)
    report = metrics.report()
    assert (report["J"], report["J referring"]) == (100.0, None)


# Ref-DAVIS17, classic.
def test_answers_are_assigned_to_objects() -> None:
    objects = torch.stack([clip(LEFT, LEFT), clip(~LEFT, ~LEFT)])
    assert measured("davis", (objects.flip(0), objects))["J&F"] == 100.0
    assert measured("davis", (objects[1:], objects))["J"] == 50.0  # one answer for two objects
    assert measured("davis", (objects[:0], objects))["J"] == 0.0
    more = torch.cat([objects, clip(EMPTY, EMPTY)[None]])
    assert measured("davis", (more, objects))["J"] == 100.0  # an answer too many costs nothing
    assert measured("davis", (objects, objects[:0]))["samples"] == 0


def test_runs_weigh_the_same() -> None:
    metrics = VideoMetrics("davis")
    for run, answer in enumerate((LEFT, EMPTY, LEFT, LEFT)):
        metrics.update(clip(answer)[None], clip(LEFT)[None], group=run)
    assert metrics.report()["J"] == 75.0
    assert metrics.report()["J run 2"] == 0.0


def test_matching_agrees_with_trying_every_order() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        answers, objects = (ref.draw_clip(rng, int(rng.integers(least, 4)), 2, (6, 8)) for least in (0, 1))
        void = rng.random((2, 6, 8)) < 0.1
        metrics = VideoMetrics("davis")
        metrics.update(torch.from_numpy(answers), torch.from_numpy(objects), void=torch.from_numpy(void))
        got = metrics.compute()
        assert float(got["J&F"]) == pytest.approx(video.best_order(answers, objects, void).mean(), abs=1e-9)


def test_scores_come_back_in_the_order_of_the_objects() -> None:
    j, f = np.array([[0.1, 0.9], [0.8, 0.2], [0.0, 0.0]]), np.zeros((3, 2))
    assert [values.tolist() for values in match(j, f)] == [[0.8, 0.9], [0.0, 0.0]]


def test_a_pixel_goes_to_one_object() -> None:
    scores = torch.tensor([[0.9, 0.6, 0.4, 0.0], [0.8, 0.7, 0.45, 0.0]]).view(2, 1, 4)
    constant, product = share_out(scores), share_out(scores, "product")
    assert constant.int().flatten(1).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert product.int().flatten(1).tolist() == [[1, 0, 0, 0], [0, 1, 1, 0]]  # 0.45 against 0.6 * 0.55 = 0.33
    assert share_out(scores[:0]).shape == (0, 1, 4)


# The class.
@pytest.mark.parametrize("name", VIDEO_PROTOCOLS)
def test_without_a_sample_nothing_is_measured(name: str) -> None:
    report = VideoMetrics(name).report()
    assert report.pop("samples") == 0
    assert set(report.values()) == {None}


def test_parts_merge_into_the_whole() -> None:
    rng = np.random.default_rng(0)
    whole, parts = VideoMetrics("revos"), [VideoMetrics("revos") for _ in range(2)]
    for number in range(8):
        answer, truth, rest = (torch.from_numpy(each) for each in ref.draw_clip(rng, 3, 2, (8, 9)))
        for metrics in (whole, parts[number % 2]):
            metrics.update(answer, truth, foreground=truth | rest, group=int(number > 3))
    parts[0].merge_state(parts[1])
    assert parts[0].report() == pytest.approx(whole.report())


FRAME = torch.zeros(1, 4, 4, dtype=torch.bool)
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: VideoMetrics("revoss"), "called 'revoss'; there are davis, davis-expression"),
    (lambda: VideoMetrics().update(FRAME[0], FRAME[0]), r"prediction must be \(T, H, W\) bool, got \(4, 4\)"),
    (lambda: VideoMetrics("davis").update(FRAME, FRAME), r"prediction must be \(K, T, H, W\) bool"),
    (lambda: VideoMetrics().update(FRAME, FRAME.expand(2, 4, 4)), r"prediction must be bool with frames \(2, 4, 4\)"),
    (lambda: VideoMetrics().update(FRAME, FRAME, void=FRAME[0]), r"void must be bool with frames \(1, 4, 4\)"),
    (lambda: VideoMetrics().update(FRAME[:0], FRAME[:0]), "needs a frame"),
    (lambda: VideoMetrics().update(FRAME, FRAME, group=1), r"no group 1; its groups are 0 \(all\)"),
    (lambda: VideoMetrics("revos").update(FRAME, FRAME), "needs foreground"),
    (
        lambda: VideoMetrics("davis").update(FRAME.expand(21, 1, 4, 4), FRAME[None]),
        "at most 20 answers a video, got 21",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
