"""A model between threads and processes: each call gets its own answer, and nothing is shared with the caller."""

import copy
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from maskselect.predictor import Model
from maskselect.proposers.sam import SamProposer
from maskselect.proposers.snapping import SnappingProposer
from maskselect.structures.answer import Answer
from maskselect.structures.clip import Clip
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.references import MaskRef
from maskselect.structures.sample import Prompt
from tests.systems.tiny import tiny_llmseg, tiny_ras

SIZE = (24, 32)


class EchoProposer:
    """One candidate where an image is bright; notes whether two threads are in it at once."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.together = False
        self.enter: Callable[[], object] = lambda: None

    def propose(self, image: np.ndarray) -> MaskSet:
        self.inside.add(threading.get_ident())
        self.together |= len(self.inside) > 1
        self.enter()
        self.inside.discard(threading.get_ident())
        return MaskSet(torch.from_numpy(image[None, :, :, 0] > 127), torch.ones(1), "echo")


class Echo(nn.Module):
    """A system that gives an image back: the proposer's candidate, whose score is the first pixel's blue."""

    name, paper, uses_threshold, answers_prompts = "echo", "", True, True

    def __init__(self) -> None:
        super().__init__()
        self.proposer = EchoProposer()

    def read(self, visual: np.ndarray | Clip, extra: MaskSet | None = None) -> tuple[MaskSet, float]:
        assert isinstance(visual, np.ndarray)
        pool = self.proposer.propose(visual)
        return pool if extra is None else pool.concat(extra), float(visual[0, 0, 2]) / 255

    def answer(self, reading: Any, prompts: list[Prompt], threshold: float | None) -> list[Answer]:
        pool, score = reading
        scores = torch.full((len(pool),), score)
        return [Answer(pool.masks, scores, pool, scores) for _ in prompts]


def picture(number: int) -> np.ndarray:
    image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
    image[0, 0, 2] = number
    return image


def is_of(group: MaskGroup, number: int) -> bool:
    own = picture(number)
    return np.array_equal(group.mask, own[..., 0] > 127) and group.candidate_scores is not None and (
        round(float(group.candidate_scores[0]) * 255) == number
    )  # fmt: skip


# Threads.
def test_each_thread_gets_its_own_answer() -> None:
    model, before = Model(Echo()), sys.getswitchinterval()

    def ask(worker: int) -> int:
        return sum(not is_of(model.select(picture(n), "x"), n) for n in range(worker, 240, 4) for _ in range(2))

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(ask, range(4))) == 0
    finally:
        sys.setswitchinterval(before)


class Overtaken(Model):
    """Where another thread's image takes the slot of the last image as soon as it is filled."""

    other: Any = None

    @property
    def _last(self) -> Any:
        return vars(self)["slot"]

    @_last.setter
    def _last(self, seen: Any) -> None:
        vars(self)["slot"] = seen if self.other is None else self.other


def test_an_answer_is_from_the_image_that_was_asked_about() -> None:
    model = Overtaken(Echo())
    assert is_of(model.select(picture(1), "x"), 1)
    model.other = model._last
    assert is_of(model.select(picture(2), "x"), 2)


def test_one_thread_computes_at_a_time() -> None:
    model, waiting = Model(Echo()), threading.Event()
    proposer: Any = model.system.proposer  # type: ignore[attr-defined]
    proposer.enter = lambda: waiting.wait(0.3)  # for the other thread, which would come in if it could
    with ThreadPoolExecutor(2) as pool:
        groups = list(pool.map(lambda n: model.select(picture(n), "x"), (1, 2)))
    assert not proposer.together and all(is_of(group, n) for group, n in zip(groups, (1, 2), strict=True))


def test_a_cache_of_the_language_model_is_not_written_to_by_prompts() -> None:
    model = Model(tiny_ras(scorer="autoregressive"), threshold=0.0)
    first = model.select(picture(1), "stars")
    length = model._last[1].candidates.cache.layers[0].keys.shape[2]  # type: ignore[index]
    decode = model.system.scorer.head.forward  # type: ignore[attr-defined]
    model.system.scorer.head.forward = lambda *_: 1 / 0  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        model.select(picture(1), "mugs")
    model.system.scorer.head.forward = decode  # type: ignore[attr-defined]
    assert model._last[1].candidates.cache.layers[0].keys.shape[2] == length  # type: ignore[index]
    assert model.select(picture(1), "stars") == first


# Memory.
def test_nothing_is_shared_with_what_was_given() -> None:
    model, buffer, mask = Model(Echo()), picture(1), np.ones(SIZE, bool)
    reference = MaskRef(mask)
    extra = np.ones((1, *SIZE), bool)
    group = model.select(buffer, "<mask-ref>", [mask])
    other = model.select_many(buffer, ["<mask-ref>"], [[reference]], extra_candidates=extra)[0]
    buffer[:], mask[:], extra[:] = picture(2), False, False
    assert is_of(group, 1) and np.array_equal(group.image, picture(1)) and group.references.all()
    assert reference.mask.all() and other.references.all() and other.candidates == 2
    assert is_of(model.select(buffer, "x"), 2)
    (kept,) = model.select_many(buffer, ["x"], keep_pool=True)
    assert kept.pool is not None and np.array_equal(kept.pool.masks[0].numpy(), picture(2)[..., 0] > 127)


def test_what_is_returned_can_be_changed_without_harm() -> None:
    model = Model(Echo())
    for _ in range(2):
        (group,) = model.select_many(picture(3), ["x"], keep_pool=True)
        assert is_of(group, 3) and np.array_equal(group.image, picture(3))
        group.masks[:], group.mask[:], group.image[:], group.candidate_scores[:] = 0, 0, 0, 0  # type: ignore[index]
        assert group.pool is not None and float(group.pool.scores[0]) == 1
        group.pool.masks[:], group.pool.scores[:] = False, 0


# Processes.
def used_models() -> list[Model]:
    systems = [tiny_ras(), tiny_ras(scorer="autoregressive"), tiny_ras(scorer="decoder"), tiny_llmseg()]
    proposer = SnappingProposer(SamProposer(points_per_side=2))
    models = [Model(system, threshold=0.0) for system in [*systems, tiny_ras(proposer)]]
    for model in models:
        model.select(picture(1), "stars")
    return models


def test_used_models_and_groups_can_be_pickled_and_copied() -> None:
    for model in used_models():
        other = pickle.loads(pickle.dumps(model))
        group = model.select(picture(1), "stars")
        for same in (other, copy.deepcopy(model)):
            assert same.select(picture(1), "stars") == group
        assert pickle.loads(pickle.dumps(group)) == group and copy.deepcopy(group) == group
        assert other.select(picture(2), "stars") != group


def test_a_network_of_transformers_loses_its_hooks_alone() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from maskselect.backends.pickling import packed

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=8, patch_size=4)).eval()
    pixels, kept = torch.rand(1, 3, 8, 8), nn.Linear(1, 1)
    wanted = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    other = pickle.loads(packed({"tower": tower, "kept": kept}))["tower"]
    found = other(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert len(found) == len(wanted) == 3 and all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert len(tower(pixel_values=pixels, output_hidden_states=True).hidden_states) == 3


def _ask_in_child(model: Model, answers: Any) -> None:
    answers.put((model.select(picture(2), "stars"), torch.get_num_threads()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("used", [False, True])
def test_a_forked_process_answers(used: bool) -> None:
    before, context = torch.get_num_threads(), multiprocessing.get_context("fork")
    torch.set_num_threads(4)
    try:
        model, reference = Model(tiny_ras(), threshold=0.0), Model(tiny_ras(), threshold=0.0)
        torch.randn(3000, 3000).exp().sum()  # the parent has threads that the child lacks
        cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)
        if used:
            model.select(picture(1), "stars")
        model._lock.acquire()  # another thread of the parent is computing
        answers = context.Queue()
        child = context.Process(target=_ask_in_child, args=(model, answers))
        child.start()
        model._lock.release()
        group, threads = answers.get(timeout=120)
        child.join(60)
        np.testing.assert_allclose(group.candidate_scores, reference.select(picture(2), "stars").candidate_scores, 1e-4)
        assert child.exitcode == 0 and threads == 1 and torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_forked_process_refuses_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(tiny_ras())
    monkeypatch.setattr(model, "_process", -1)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    with pytest.raises(RuntimeError, match="which a forked process cannot use; load it in the worker"):
        model.select(picture(1), "stars")


# Settings of the process.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_no_answer(dtype: torch.dtype) -> None:
    mask, extra = np.ones(SIZE, bool), np.ones((1, *SIZE), bool)
    extra[0, :, 16:] = False
    proposer = SnappingProposer(SamProposer(points_per_side=2))
    systems: list[Any] = [tiny_ras(proposer), tiny_ras(proposer, scorer="autoregressive"), tiny_llmseg(proposer)]
    for model in (Model(system, threshold=0.0) for system in systems):
        wanted = model.select_many(picture(1), ["stars", "<mask-ref>"], [[], [mask]], extra_candidates=extra)
        model._last = None
        torch.set_default_dtype(dtype)
        try:
            found = model.select_many(picture(1), ["stars", "<mask-ref>"], [[], [mask]], extra_candidates=extra)
        finally:
            torch.set_default_dtype(torch.float32)
        assert found == wanted and found[0].scores.dtype == np.float32
