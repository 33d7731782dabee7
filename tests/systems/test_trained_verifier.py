"""`TrainedVerifier`: its batches, that it learns what it then answers, and where its language model comes from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from maskselect.backends import checkpoints
from maskselect.backends.building import build
from maskselect.backends.config_tree import changed
from maskselect.data.clips import open_clip
from maskselect.lmm.llava import Llava
from maskselect.lmm.qwen_vl import QwenVl
from maskselect.ops.overlap import pairwise_iou
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.groups import Annotated, GroupSource, PrepareSettings, Query, UnusableImageError
from maskselect.structures.protocols import GroupLearner, StoringPreparer, System
from maskselect.structures.sample import Prompt
from maskselect.systems.loading import load_system
from maskselect.systems.preparing import LabelRule
from maskselect.systems.region_batches import RegionBatch
from maskselect.systems.trained_verifier import TrainedVerifier
from maskselect.systems.verifying import Shown, Verifier, question_of
from maskselect.training.synthetic_candidates import SyntheticCandidates
from tests.systems.tiny import SIZES, Nothing, Quarters
from tests.systems.tiny_public import write_qwen2_vl

IMAGE = np.kron(np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
QUERIES = [
    Query("stars", (), (0,)),
    Query("left of <mask-ref>", (1,), (0, 2)),
    Query("right of <mask-ref>", (0,), (1, 3)),
    Query("nothing", (), ()),
    Query("above <mask-ref>", (1,), ()),
    Query('"what is this?"', (), (), answer="stars"),
]


class Source:
    """One picture, whose annotated masks are the quarters, with `QUERIES` in their order."""

    def __len__(self) -> int:
        return 1

    def image_id(self, item: int) -> str:
        return "a"

    def version(self, item: int) -> str:
        return "1"

    def prompts_of(self, item: int) -> int:
        return len(QUERIES)

    def load(self, item: int) -> Annotated:
        return Annotated(IMAGE, Quarters().propose(IMAGE).masks, {"seen": torch.ones(1)})

    def queries(self, item: int, extra: Any, count: int, rng: np.random.Generator) -> list[Query]:
        assert extra["seen"].item() == 1
        return QUERIES[:count]

    def caption(self, item: int, extra: Any, rng: np.random.Generator) -> str:
        raise ValueError


def tiny(proposer: Any = None, **arguments: Any) -> TrainedVerifier:
    torch.manual_seed(0)
    sides = {"view_side": 64, "crop_side": 32, "rows": 3}
    return TrainedVerifier(proposer or Quarters(), Llava(sizes=SIZES), **(sides | arguments))


def prepared(system: TrainedVerifier, folder: Path | None = None, source: GroupSource | None = None) -> RegionBatch:
    preparer = system.preparer(PrepareSettings(folder), True)
    item = preparer.prepare(source or Source(), 0, np.random.default_rng(0), 99)
    return preparer.collate([item])


def test_every_known_question_is_asked_about_every_candidate() -> None:
    system = tiny(references=1)
    assert isinstance(system, System) and isinstance(system, GroupLearner)
    batch = prepared(system)
    asked = dict.fromkeys(map(tuple, batch.questions[0]))
    bare, pointed = ("stars", "nothing"), ("left of <mask-ref>", "above <mask-ref>")
    assert list(asked) == [bare, tuple(question_of(text, "plain") for text in pointed)]
    assert len(batch.questions[0]) == 8  # four candidates, without and with the first reference
    right = {"stars": [0], "nothing": [], pointed[0]: [0, 2], pointed[1]: []}
    wanted = [float(number in right[text]) for texts in (bare, pointed) for number in range(4) for text in texts]
    assert batch.labels[0].tolist() == wanted
    assert batch.views[0].shape == batch.crops[0].shape == (8, *batch.pictures.shape[1:])
    (views,), (crops,) = batch.views, batch.crops
    assert torch.equal(crops[:4], crops[4:]) and not torch.equal(views[:4], views[4:])
    both = prepared(tiny(references=2))
    assert len(both.questions[0]) == 12 and float(both.labels[0].sum()) == 5


def test_half_of_the_candidates_match_and_unclear_ones_are_not_asked() -> None:
    system, source = tiny(candidates=6), SceneGroups("train", 0, 2)
    settings = PrepareSettings(synthetic_candidates=SyntheticCandidates())
    preparer = system.preparer(settings, True)
    record = preparer.record(source, 0)
    matched = (record.overlap >= 0.7).any(1)
    assert len(matched) == 6 and int(matched.sum()) == 3
    queries = source.queries(0, record.extra, 20, np.random.default_rng(5))
    item = preparer.prepare(source, 0, np.random.default_rng(5), 20)
    shown = [query for query in queries if record.view_of(query.references) is not None]
    labels = torch.stack([LabelRule().labels(record.overlap, query.targets) for query in shown])
    assert (labels == -1).any() and len(shown) < len(queries)
    assert len(item.labels[0]) == int((labels >= 0).sum()) and float(item.labels[0].sum()) == float((labels == 1).sum())


def test_training_asks_what_prediction_asks() -> None:
    """Features are cached in half precision, and a row asks several questions; else both are the same."""
    system = tiny(references=2).eval()
    batch = prepared(system)
    with torch.no_grad():
        found = iter(system.logits(batch).sigmoid().tolist())
    masks, reading = Quarters().propose(IMAGE).masks, system.read(IMAGE)
    scores = {}
    for query in QUERIES[:5]:
        (answer,) = system.answer(reading, [Prompt(query.text, masks[list(query.references)])], 0.0)
        scores[question_of(query.text, "plain"), query.references] = answer.pool_scores
    sets = [()] * 4 + [(1,)] * 4 + [(0,)] * 4
    numbers = [*range(4)] * 3
    wanted = [
        float(scores[text, references][number])
        for references, number, own in zip(sets, numbers, batch.questions[0], strict=True)
        for text in own
    ]
    assert len(wanted) == 20 and np.std(wanted) > 1e-4
    np.testing.assert_allclose(list(found), wanted, atol=2e-4)


def test_questions_of_one_row_do_not_see_each_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for lmm in (Llava(sizes=SIZES).eval(), QwenVl(model=str(write_qwen2_vl(tmp_path))).eval()):
        verifier = Verifier(lmm, 64, 56, 56, phrasing="plain")
        image = np.ascontiguousarray(IMAGE[:56, :56])
        grid, texts = lmm.image_grid(56, 56), ["stars", "the red mugs on the left", "mugs"]
        shown = [[Shown(tokens, grid) for tokens in verifier.image_tokens([image, image[::-1].copy()])]] * 2
        with torch.no_grad():
            read = verifier.read(image)
            together = verifier.logits(read, shown, [texts, texts[:1]])
            alone = torch.cat([verifier.logits(read, shown[:1], [[text]]) for text in [*texts, texts[0]]])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
        assert together[:3].std() > 1e-4


def test_it_learns_what_it_then_answers() -> None:
    system = tiny()
    batch = prepared(system)
    trained = [parameter for parameter in system.parameters() if parameter.requires_grad]
    assert not any(p.requires_grad for p in system.lmm.vision_tower.parameters()) and len(trained) > 10
    optimizer = torch.optim.AdamW(trained, 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = system.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 and system.validate(batch)["yes"] == system.validate(batch)["no"] == 1
    masks, reading = Quarters().propose(IMAGE).masks, system.eval().read(IMAGE)
    answers = system.answer(reading, [Prompt(QUERIES[0].text, masks[:0]), Prompt(QUERIES[1].text, masks[1:2])], None)
    assert torch.equal(answers[0].masks, masks[:1]) and torch.equal(answers[1].masks.any(0), masks[[0, 2]].any(0))


def test_the_loss_weights_the_answer_yes() -> None:
    system = tiny(positive_weight=3.0)
    batch = prepared(system)
    with torch.no_grad():
        found, probabilities = system.loss(batch), system.logits(batch).sigmoid().numpy()
    pairs = zip(probabilities, batch.labels[0].tolist(), strict=True)
    terms = [-3 * np.log(p) if label else -np.log(1 - p) for p, label in pairs]
    assert float(found["loss"]) == pytest.approx(np.mean(terms), rel=1e-4)


def test_validation_compares_groups_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores choose a wrong candidate for "nothing", and one of two for "left of"."""
    system = tiny()
    batch = prepared(system)
    right = batch.labels[0] > 0.5
    for prompt, candidate, says in ((3, 1, True), (1, 2, False)):
        (numbers,) = (batch.prompts[0] == prompt).nonzero(as_tuple=True)
        right[numbers[candidate]] = says
    monkeypatch.setattr(system, "logits", lambda _: torch.where(right, 1.5, -3.0))  # 0.82 and 0.05
    found = system.validate(batch)
    assert float(found["f1@0.5"]) == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)  # stars, left of, nothing, above
    assert float(found["f1@0.9"]) == pytest.approx((0 + 0 + 1 + 1) / 4)


def test_a_picture_whose_prompts_are_all_unknown_trains_nothing() -> None:
    system, source = tiny(references=0), Source()
    source.queries = lambda *_: [QUERIES[1]]  # type: ignore[method-assign]
    batch = prepared(system, source=source)
    assert batch.questions == [[]]
    losses = system.loss(batch)
    losses["loss"].backward()
    assert float(losses["loss"].detach()) == 0
    assert all(p.grad is not None for p in system.parameters() if p.requires_grad)


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tiny()
    preparer = system.preparer(PrepareSettings(tmp_path), True)
    assert isinstance(preparer, StoringPreparer)
    assert [preparer.keep(Source(), 0), preparer.keep(Source(), 0)] == [True, False]
    fresh = prepared(system)
    with monkeypatch.context() as patched:
        patched.setattr(system.lmm, "vision_features", None)
        assert prepared(system, tmp_path) == fresh
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert prepared(system, tmp_path) == fresh and file.stat().st_size > 100
    folders = {preparer.folder, *(one.preparer(PrepareSettings(tmp_path), True).folder for one in others())}
    assert len(folders) == 4
    with pytest.raises(ValueError, match="kept in no folder"):
        system.preparer(PrepareSettings(), True).keep(Source(), 0)
    with pytest.raises(UnusableImageError, match="image a: the picture has no candidates"):
        prepared(tiny(Nothing()))


def others() -> list[TrainedVerifier]:
    """Systems with other features."""
    return [tiny(candidates=3), tiny(view_side=48), tiny(Nothing())]


def test_validation_takes_the_candidates_of_the_proposer() -> None:
    settings = PrepareSettings(synthetic_candidates=SyntheticCandidates())
    made = [tiny().preparer(settings, training).record(Source(), 0).overlap for training in (True, False)]
    wanted = pairwise_iou(Quarters().propose(IMAGE).masks, Quarters().propose(IMAGE).masks).half()
    assert torch.equal(made[1], wanted) and not torch.equal(made[0], wanted)


def test_a_checkpoint_answers_as_before(tmp_path: Path) -> None:
    config = yaml.safe_load(Path("configs/verifier.yaml").read_text())["model"]["task"]
    config["init_args"]["start"] = None
    system = build(config).eval()
    with torch.no_grad():
        system.lmm.projector.linear_2.bias.normal_(generator=torch.Generator().manual_seed(0))
    file = tmp_path / "verifier.safetensors"
    state = system.learned_state()
    assert not any("vision_tower" in name for name in state) and sum(t.numel() for t in state.values()) > 1e6
    checkpoints.write_checkpoint(file, state, {"system": "verifier", "config": config}, None)
    again, _ = load_system(file)
    for one in (system, again):
        one.replace_proposer(Quarters())  # type: ignore[attr-defined]
    prompts = [Prompt("the red mugs", torch.zeros(0, 64, 64, dtype=torch.bool))]
    first, second = (one.answer(one.read(IMAGE), prompts, 0.0)[0].pool_scores for one in (system, again.eval()))
    assert first is not None and second is not None and torch.equal(first, second)
    tensors = checkpoints.read_tensors(file)
    tensors.pop("verifier.lmm.model.model.language_model.norm.weight")
    with pytest.raises(ValueError, match="Trained verifier as configured"):
        again.load_learned(tensors, file)  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", ["ras", "text4segpp"])
def test_it_starts_from_the_language_model_of_another_system(start: str) -> None:
    """Image tokens of RAS are its mask tokens: the cells of the grid pooled as masks."""
    config = yaml.safe_load(Path("configs/verifier.yaml").read_text())["model"]["task"]
    system = build(changed(config, start=start))
    tensors = checkpoints.read_tensors(start)
    name = "model.model.language_model.layers.0.mlp.up_proj.weight"
    held = system.state_dict()[f"verifier.lmm.{name}"]
    torch.testing.assert_close(held, tensors[f"reader.lmm.{name}"].float())
    features = torch.randn(1, 3, system.lmm.vision_width)
    with torch.no_grad():
        tokens = system.lmm.project_image(features)[0]
    prefix = "reader.mask_tokenizer." if start == "ras" else "reader.lmm.model.model.multi_modal_projector."
    parts = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    inputs = features[0]
    if start == "ras":
        inputs = torch.cat([inputs, torch.zeros(3, 1)], 1)
        inputs = (inputs - parts["mean"]) * parts["scale"]
        inputs[:, -1] = 0
    names = ("projector.0", "projector.2") if start == "ras" else ("linear_1", "linear_2")
    first, second = ((parts[f"{one}.weight"], parts[f"{one}.bias"]) for one in names)
    linear: Callable[..., torch.Tensor] = torch.nn.functional.linear
    wanted = linear(torch.nn.functional.gelu(linear(inputs, *first)), *second)
    torch.testing.assert_close(tokens, wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="llmseg"):
        build(changed(config, start="llmseg"))


def test_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without images on grids and without gradient_checkpointing"):
        TrainedVerifier(Quarters(), QwenVl(model=str(write_qwen2_vl(tmp_path))))
    with pytest.raises(ValueError, match="without gradient_checkpointing"):
        TrainedVerifier(Quarters(), Llava(sizes=SIZES, gradient_checkpointing=True))
    with pytest.raises(ValueError, match="candidates 0 and references 1; expected at least 1 and 0"):
        tiny(candidates=0)
    with pytest.raises(ValueError, match="Trained verifier without a similarity reads pictures only"):
        tiny().read(open_clip([IMAGE, IMAGE]))
