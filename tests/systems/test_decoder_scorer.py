"""RAS beside a frozen language model: equal to its second pass at first, learns, counts, and keeps what is its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.predictor import Model, load
from maskselect.structures.sample import Batch, Overlaps
from maskselect.systems import scoring
from maskselect.systems.decoder_scorer import DecoderSettings, best
from maskselect.systems.ras import RAS
from tests.hub_world import config as tiny_config
from tests.systems.tiny import SIZES, TEXTS, tiny_batch, tiny_ras

LABELS = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]).float()


def _decoder(lmm: Llava | None = None, **settings: Any) -> RAS:
    start = {"start": settings.pop("start")} if "start" in settings else {}
    return tiny_ras(lmm=lmm, scorer="decoder", decoder=DecoderSettings(**settings), **start)


def _batch(system: RAS, images: int = 2) -> Batch:
    """IoA is 0.9 in the group and 0.3 outside of it."""
    batch = tiny_batch(system, images)
    ioa = (0.3 + 0.6 * LABELS).repeat(images, 1, 1) * batch.candidate_valid[:, None]
    return Batch(**{**vars(batch), "overlaps": Overlaps(ioa * 0.5, ioa, ioa.gt(0.6).any(-1))})


def _learn(system: RAS, batch: Batch, steps: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = system.train().loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_an_untrained_decoder_is_the_second_pass_of_the_frozen_model() -> None:
    """The same language model, head and tokens; candidates stand behind the prompt and not with the image."""
    whole = tiny_ras(second_pass="mutual").eval()
    system = _decoder().eval()
    shared = {k: v for k, v in whole.state_dict().items() if not k.startswith("scorer.decoder")}
    system.load_state_dict(shared, strict=False)
    system.scorer.decoder.begin_as(system.lmm.language_model)
    batch = tiny_batch(system)
    with torch.no_grad():
        images = scoring.lay_out_images(whole.reader, batch, [[], []])
        images.cache = whole.lmm.new_cache()
        whole.lmm.hidden(whole.reader.embed(images.rows, images.tokens), None, images.rows.positions, images.cache)
        images.orders = scoring.candidate_orders(batch.candidate_valid, shuffle=False)
        wanted = whole.scorer._logits(whole.reader, images, batch.prompts)
        found = system(batch)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert found[batch.candidate_valid[:, None].expand_as(found)].std() > 1e-3


@pytest.mark.parametrize("recompute", [False, True])
def test_the_language_model_is_frozen_and_all_else_learns(recompute: bool) -> None:
    system = _decoder(Llava(sizes=SIZES, gradient_checkpointing=recompute)).train()
    assert not system.lmm.training and system.scorer.training
    system.loss(_batch(system))["loss"].backward()
    for name, parameter in system.named_parameters():
        frozen = name.startswith(("reader.lmm.", "encoders."))
        assert parameter.requires_grad != frozen, name
        assert frozen == (parameter.grad is None or not parameter.grad.abs().sum() > 0), name
    announcing, referring = system.reader.mask_tokenizer.pre.grad
    assert announcing.abs().sum() == 0 and referring.abs().sum() > 0  # through the language model; no other way


def test_recomputing_gives_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        system = _decoder(Llava(sizes=SIZES, gradient_checkpointing=recompute))
        found.append(system.train().loss(_batch(system)))
        found[-1]["loss"].backward()
        found.append({n: p.grad for n, p in system.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[:2], found[2:], atol=1e-5, rtol=1e-3)


def test_it_learns_a_batch_by_heart_with_its_counts() -> None:
    system = _decoder(use_count=True)
    batch = _batch(system, images=1)
    frozen = {k: v.clone() for k, v in system.lmm.state_dict().items()}
    losses = _learn(system, batch, 150)
    assert losses[-1] < 0.3 * losses[0]
    torch.testing.assert_close(system.lmm.state_dict(), frozen, atol=0, rtol=0)
    system.eval()
    assert system.validate(batch)["exact@0.5"] == 1
    read = system.scorer.read(system.reader, batch)
    _, groups = system.scorer.answer(system.reader, read, TEXTS, read.tokens.references[0], 0.5)
    assert torch.equal(groups, system.scorer.labels(batch)[0] > 0)


def test_losses_against_double_precision() -> None:
    settings = {"positive_weight": 2.0, "count_weight": 7.0, "ignored_ioa": 0.2}
    system = _decoder(**settings).eval()
    batch = _batch(system)
    batch.prompts[1] = TEXTS[:2]  # the second image has fewer
    batch.reference_features[1] = batch.reference_features[1][:2]
    batch.overlaps.iop[0, 0, 1] = 0.1  # neither in the group nor between
    with torch.no_grad():
        found = {name: float(value) for name, value in system.loss(batch).items()}
        logits, shares = system.scorer._logits_and_shares(
            system.reader, system.scorer.read(system.reader, batch), batch.prompts
        )
    selection, count = [], []
    for image, prompts in enumerate(batch.prompts):
        candidates = batch.candidate_valid[image].nonzero()[:, 0].tolist()
        for prompt in range(len(prompts)):
            terms, group = [], 0
            for n in candidates:
                ioa, p = (
                    float(batch.overlaps.iop[image, prompt, n]),
                    1 / (1 + np.exp(-np.float64(logits[image, prompt, n]))),
                )
                group += ioa > 0.6
                if ioa > 0.6 or ioa <= 0.2:
                    terms.append(-2 * np.log(p) if ioa > 0.6 else -np.log(1 - p))
            selection.append(np.mean(terms) if terms else 0.0)
            count.append(abs(np.float64(shares[image, prompt]) * len(candidates) - group))
    assert len(count) == 6 and found["selection"] == pytest.approx(np.mean(selection), abs=1e-5)
    assert found["count"] == pytest.approx(np.mean(count), abs=1e-5)
    assert found["loss"] == pytest.approx(np.mean(selection) + 0.07 * np.mean(count), abs=1e-4)
    assert (logits[1, 2:] == -1e4).all()


def test_labels_are_by_the_share_of_a_candidate_inside() -> None:
    system = _decoder(ignored_ioa=0.4)
    batch = _batch(system)
    batch.overlaps.iop[1, 0] = torch.tensor([0.0, 0.4, 0.41, 0.6, 0.61])
    batch.prompts[1] = TEXTS[:1]
    labels = system.scorer.labels(batch)
    assert labels[1].tolist() == [[0, 0, -1, -1, 1], *[[-1] * 5] * 3]
    assert labels[0, :, -1].tolist() == [-1] * 4 and torch.equal(labels[0, :, :-1], LABELS[:, :-1])
    assert _decoder().scorer.labels(Batch(**{**vars(batch), "overlaps": None})) is None
    assert _decoder().scorer.labels(batch)[1, 0].tolist() == [0, 0, 0, 0, 1]


def test_the_order_of_candidates_orders_scores_alone() -> None:
    system = _decoder().eval()
    batch = tiny_batch(system).row(1)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = Batch(**{**vars(batch), "candidate_features": batch.candidate_features[:, order]})
    with torch.no_grad():
        torch.testing.assert_close(system(turned), system(batch)[..., order], atol=1e-5, rtol=1e-4)


def test_padding_and_company_change_nothing() -> None:
    system = _decoder().eval()
    batch = tiny_batch(system)
    with torch.no_grad():
        alone, together = system(batch.row(0)), system(batch)
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)
        assert (together[0, :, -1] == -1e4).all()
        batch.candidate_features[0, -1] = 9.0
        torch.testing.assert_close(system(batch)[0, :, :-1], together[0, :, :-1], atol=1e-6, rtol=0)
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    read, references = system.read_candidates(image, batch.candidate_features[1]), batch.reference_features[1]
    scores = system.score_candidates(read, TEXTS * 5, references * 5, 0.5)[0]  # more than one pass
    apart = [system.score_candidates(read, [text], [own], 0.5)[0] for text, own in zip(TEXTS, references, strict=True)]
    torch.testing.assert_close(scores, torch.cat(apart).repeat(5, 1), atol=1e-5, rtol=1e-4)


def test_a_count_takes_the_best() -> None:
    scores = torch.tensor([[0.2, 0.9, 0.4], [0.2, 0.9, 0.4], [0.5, 0.5, 0.1]])
    wanted = [[False, True, True], [False] * 3, [True, False, False]]
    assert best(scores, torch.tensor([2.0, 0.0, 1.0])).tolist() == wanted
    model = Model(_decoder(use_count=True), threshold=1.0)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    last = model.system.scorer.count_head.layers[2]
    for share, count in ((0.0, 0), (0.12, 0), (0.3, 1), (0.55, 2), (1.7, 4), (-3.0, 0)):
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(share)
        group = model.select(image, "stars")  # of four candidates, whatever the threshold
        assert len(group.masks) == count
        assert sorted(group.candidate_scores)[4 - count :] == sorted(group.scores)


def test_the_public_call_asks_one_or_many() -> None:
    model = Model(_decoder(), threshold=0.0)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[5:20, 5:20] = True
    many = model.select_many(image, ["stars", "left of <mask-ref>"], [[], [mask]])
    one = model.select(image, "left of <mask-ref>", [mask])
    assert len(one.masks) == 4
    np.testing.assert_allclose(many[1].candidate_scores, one.candidate_scores, atol=1e-5)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A whole RAS, whose language model others take."""
    whole = tiny_ras(second_pass="mutual")
    write_checkpoint(tmp_path / "base.safetensors", whole.learned_state(), {"system": "ras"})
    return tmp_path / "base.safetensors"


def test_checkpoints_hold_what_trains(base: Path) -> None:
    system = _decoder(Llava(sizes=SIZES, base=str(base)), start=str(base))
    held = system.learned_state()
    assert {k.split(".")[0] for k in held} == {"reader", "scorer"}
    assert all(k.startswith("reader.mask_tokenizer.") or "position_ids" in k for k in held if k.startswith("reader."))
    _learn(system, _batch(system), 2)
    again = _decoder(Llava(sizes=SIZES, base=str(base)))
    again.load_learned({k: v.clone() for k, v in system.learned_state().items()}, "here")
    batch = tiny_batch(system)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(batch), system.eval()(batch))
    alone = _decoder()
    assert any("language_model.layers" in k for k in alone.learned_state())
    alone.load_learned(alone.learned_state(), "here")


def test_a_trained_ras_is_a_beginning(base: Path) -> None:
    """Its head and mask projector are taken, and its language model is copied, whoever brings it."""
    for lmm in (Llava(sizes=SIZES, base=str(base)), Llava(sizes=SIZES)):
        system = _decoder(lmm, start=str(base))
        copied, own = system.scorer.decoder.layers[1].layer.mlp.up_proj, lmm.language_model.layers[1].mlp.up_proj
        assert torch.equal(copied.weight, own.weight) and copied.weight is not own.weight
        stored = tiny_ras(start=str(base)).state_dict()
        for name in ("scorer.head.layers.2.weight", "reader.mask_tokenizer.projector.0.weight"):
            assert torch.equal(system.state_dict()[name], stored[name])
        assert torch.equal(own.weight, stored["reader.lmm.model.model.language_model.layers.1.mlp.up_proj.weight"])


def test_a_beginning_with_another_language_model_is_refused(base: Path, tmp_path: Path) -> None:
    other = {k: v + 0.1 if "up_proj" in k else v for k, v in tiny_ras(start=str(base)).learned_state().items()}
    write_checkpoint(tmp_path / "other.safetensors", other, {"system": "ras"})
    with pytest.raises(ValueError, match=r"another reader\.lmm.*stays frozen"):
        _decoder(Llava(sizes=SIZES, base=str(base)), start=str(tmp_path / "other.safetensors"))


def test_a_checkpoint_loads_by_its_card(tmp_path: Path) -> None:
    config = tiny_config()
    config["init_args"] |= {"scorer": "decoder", "decoder": {"every": 2, "use_count": True}}
    system = _decoder(every=2, use_count=True)
    write_checkpoint(tmp_path / "a.safetensors", system.learned_state(), {"system": "ras", "config": config})
    model = load(tmp_path / "a.safetensors", device="cpu")
    assert model.system.scorer.settings == DecoderSettings(every=2, use_count=True)
    assert len(model.system.scorer.decoder.layers) == 1
    group = model.select(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "stars")
    assert len(group.candidate_scores) == group.candidates


def test_settings_that_do_not_fit_are_told() -> None:
    for settings, message in (
        ({"positive_ioa": 1.0}, "positive_ioa must be in"),
        ({"ignored_ioa": 0.7}, "from 0 to positive_ioa, got 0.7"),
        ({"count_weight": -1.0}, "count_weight not below"),
        ({"every": 3}, "every must be from 1 to 2"),
        ({"lmm": Llava(sizes=SIZES, lora=LoraSettings(r=2, alpha=4))}, "expected lmm without lora"),
    ):
        with pytest.raises(ValueError, match=message):
            _decoder(**settings)
    with pytest.raises(ValueError, match="scorer is 'parallel'"):
        tiny_ras(decoder=DecoderSettings())
    with pytest.raises(ValueError, match="stage_1_trains may not be 'all'"):
        tiny_ras(scorer="decoder", stage=1, stage_1_trains="all")
    system = _decoder()
    batch = tiny_batch(system)
    with pytest.raises(ValueError, match="needs the overlaps"):
        system.loss(Batch(**{**vars(batch), "overlaps": None}))
    with pytest.raises(ValueError, match="read by another scorer"):
        system.scorer._logits_and_shares(system.reader, scoring.read_images(system.reader, batch), batch.prompts)
