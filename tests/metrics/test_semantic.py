"""`SemanticMetrics` against torchmetrics, the published formulas and cases by hand."""

import numpy as np
import pytest
import torch
from torchmetrics import JaccardIndex

from maskselect.metrics.semantic import SemanticMetrics

NAMES = ["others", *"abcd"]


def drawn(seed: int, size: tuple[int, int] = (20, 30)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, size, generator=generator), torch.randint(5, size, generator=generator)


def test_agrees_with_torchmetrics() -> None:
    ours, theirs = SemanticMetrics(NAMES), JaccardIndex(task="multiclass", num_classes=5, average="none")
    for seed in range(4):
        prediction, truth = drawn(seed, (20 + seed, 30))
        ours.update(prediction, truth)
        theirs.update(prediction.where(truth != 0, 0)[None], truth[None])
    torch.testing.assert_close(ours.overlaps().float(), theirs.compute().float())


def test_follows_the_published_formulas() -> None:
    """Intersections and unions of labelled pixels; class 0 by its closed form."""
    metrics = SemanticMetrics(NAMES)
    pairs = [drawn(seed) for seed in range(3)]
    for prediction, truth in pairs:
        metrics.update(prediction, truth)
    p, t = (np.concatenate([pair[k].numpy().ravel() for pair in pairs]) for k in (0, 1))
    unlabelled, missed = (t == 0).sum(), ((t != 0) & (p == 0)).sum()
    expected = [unlabelled / (unlabelled + missed)]
    p, t = p[t != 0], t[t != 0]
    expected += [((p == c) & (t == c)).sum() / ((p == c) | (t == c)).sum() for c in range(1, 5)]
    report = metrics.report()
    assert report == {
        "samples": 3,
        "mIoU": round(100 * np.mean(expected), 2),
        "mIoU w/o others": round(100 * np.mean(expected[1:]), 2),
    }
    assert list(metrics.by_class().values()) == [round(100 * value, 2) for value in expected]


def test_what_is_found_in_unlabelled_pixels_is_no_error() -> None:
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 2]])
    metrics = SemanticMetrics(NAMES)
    metrics.update(torch.tensor([[4, 3, 1, 1], [4, 3, 2, 2]]), truth)
    assert metrics.report() == {"samples": 1, "mIoU": 100.0, "mIoU w/o others": 100.0}
    assert metrics.by_class() == {"others": 100.0, "a": 100.0, "b": 100.0, "c": None, "d": None}
    metrics.update(torch.zeros_like(truth), truth)  # finds nothing
    assert metrics.by_class() == {"others": 66.67, "a": 50.0, "b": 50.0, "c": None, "d": None}


def test_images_add_up_in_any_order_and_by_merging() -> None:
    whole, parts = SemanticMetrics(NAMES), [SemanticMetrics(NAMES) for _ in range(2)]
    for seed in range(4):
        whole.update(*drawn(seed))
        parts[seed % 2].update(*drawn(seed))
    parts[0].merge_state(parts[1])
    assert parts[0].report() == whole.report()


def test_refuses_what_it_cannot_count() -> None:
    metrics = SemanticMetrics(NAMES)
    assert metrics.report() == {"samples": 0, "mIoU": None, "mIoU w/o others": None}
    with pytest.raises(ValueError, match=r"of shape \(1, 2\); expected \(2, 1\)"):
        metrics.update(torch.zeros(1, 2).long(), torch.zeros(2, 1).long())
    with pytest.raises(ValueError, match="truth has classes 0 to 5; expected 0 to 4"):
        metrics.update(torch.zeros(1, 2).long(), torch.tensor([[0, 5]]))
    with pytest.raises(ValueError, match="expected at least two"):
        SemanticMetrics(["others"])
