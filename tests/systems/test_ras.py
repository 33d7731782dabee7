"""RAS: equal results whichever way a prompt is run, what trains and what does not, and its checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.position import SinusoidEncoder
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.structures.groups import Annotated, Query
from maskselect.structures.sample import Batch
from maskselect.systems.preparing import LabelRule, compute, make_batch
from maskselect.systems.ras import RAS
from tests.lmm.twin import save, twin
from tests.systems.tiny import SIZES, TEXTS, Quarters, tiny_batch, tiny_llmseg, tiny_ras

MODES = ["causal", "independent", "mutual"]


@pytest.mark.parametrize("mode", MODES)
def test_cached_prefix_equals_one_packed_row(mode: str) -> None:
    system = tiny_ras(second_pass=mode).eval()
    batch = tiny_batch(system)
    with torch.no_grad():
        cached = system(batch)
    system.lmm.gradient_checkpointing = True  # forbids caches, so everything runs in one row
    packed = system(batch).detach()
    torch.testing.assert_close(cached, packed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_many_prompts_equal_one_at_a_time(mode: str) -> None:
    system = tiny_ras(second_pass=mode).eval()
    batch = tiny_batch(system)
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    read = system.read_candidates(image, batch.candidate_features[1])
    together = system.score_candidates(read, TEXTS, batch.reference_features[1], 0.5)[0]
    apart = [
        system.score_candidates(read, [t], [r], 0.5)[0] for t, r in zip(TEXTS, batch.reference_features[1], strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(system.score_candidates(read, TEXTS, batch.reference_features[1], 0.5)[0], together)


@pytest.mark.parametrize("mode", ["independent", "mutual"])
def test_second_pass_ignores_order(mode: str) -> None:
    """With the first pass held still, shuffling the second must only shuffle the scores."""
    from maskselect.systems import scoring

    system = tiny_ras(second_pass=mode).eval()
    batch = tiny_batch(system).row(1)
    with torch.no_grad():
        images = scoring.read_images(system.reader, batch)
        before = system.scorer._logits(system.reader, images, batch.prompts)
        images.orders[0].reverse()
        after = system.scorer._logits(system.reader, images, batch.prompts)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scorer", ["parallel", "autoregressive", "decoder"])
def test_prompts_that_are_not_there_count_nothing(scorer: str) -> None:
    """An image with eight prompts beside one with a single one: the mean is over nine."""
    system, name = tiny_ras(scorer=scorer).eval(), "selection" if scorer == "decoder" else "loss"
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :10, :10] = masks[1, 10:, 10:] = True
    record = compute(system, Annotated(np.zeros((20, 20, 3), np.uint8), masks))

    def loss(*counts: int) -> torch.Tensor:
        asked = [[Query(f"thing {number}", (), (number % 2,)) for number in range(count)] for count in counts]
        return system.loss(make_batch([record] * len(counts), asked, None, LabelRule()))[name]

    many, one = loss(8), loss(1)
    torch.testing.assert_close(loss(8, 1), (8 * many + one) / 9, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing() -> None:
    system = tiny_ras().eval()
    batch = tiny_batch(system)
    with torch.no_grad():
        alone, together = system(batch.row(0)), system(batch)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)
    assert (together[0, :, -1] < -1000).all()


@pytest.mark.parametrize("pre_tokens", ["none", "same", "different"])
@pytest.mark.parametrize("image_tokens", [True, False])
def test_gradients_reach_what_trains(pre_tokens: Any, image_tokens: bool) -> None:
    system = tiny_ras(pre_tokens=pre_tokens, image_tokens=image_tokens).train()
    system.loss(tiny_batch(system))["loss"].backward()
    for name, parameter in system.named_parameters():
        frozen = "vision_tower" in name or name.startswith("encoders.")
        assert parameter.requires_grad != frozen, name
        unused = "lm_head" in name or (not image_tokens and "multi_modal_projector" in name)
        if parameter.requires_grad and not unused and parameter.numel():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_stage_one_trains_the_projector_alone() -> None:
    system = tiny_ras(stage=1).train()
    system.loss(tiny_batch(system))["loss"].backward()
    touched = {name for name, p in system.named_parameters() if p.grad is not None}
    assert touched and all(name.startswith("reader.mask_tokenizer.") for name in touched)
    assert any("projector" in name for name in touched)


def test_stage_one_may_train_the_language_model_too_and_then_captions() -> None:
    system = tiny_ras(stage=1, stage_1_trains="all", image_tokens=False).train()
    batch = tiny_batch(system)
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        system.loss(batch)["loss"].backward()
        optimizer.step()
    system.eval()
    for row, caption in enumerate(batch.captions):
        assert system.caption(batch.candidate_features[row][batch.candidate_valid[row]]) == caption
    assert not any(p.requires_grad for p in system.encoders.parameters())


def test_stage_one_needs_captions() -> None:
    system = tiny_ras(stage=1)
    with pytest.raises(ValueError, match="captions"):
        system.loss(Batch(**{**vars(tiny_batch(system)), "captions": None}))


def test_caption_loss_is_the_plain_sequence_loss() -> None:
    """Against transformers' own loss on the same embeddings, one caption."""
    system = tiny_ras(stage=1).eval()
    batch = tiny_batch(system).row(1)
    reader, lmm = system.reader, system.lmm
    tokens = reader.tokens(Batch(**{**vars(batch), "image_features": None, "reference_features": [[]]}))
    ids = torch.tensor([[*lmm.token_ids(batch.captions[0]), 2]])
    begin, newline = (lmm.embed(torch.tensor([i])) for i in (reader.chat[False].begin, reader.chat[False].after))
    pre = reader.mask_tokenizer.pool_pre
    masks = torch.stack([t for c in tokens.candidates[0] for t in (pre, c)])[None]
    context = torch.cat([begin, masks, newline], 1)
    labels = torch.cat([torch.full(context.shape[:2], -100), ids], 1)
    wanted = twin(lmm)(inputs_embeds=torch.cat([context, lmm.embed(ids)], 1), labels=labels).loss
    torch.testing.assert_close(system.loss(batch)["loss"], wanted, atol=1e-5, rtol=1e-5)


def test_lora_trains_adapters_projector_and_head_only() -> None:
    lora = LoraSettings(r=2, alpha=4, dropout=0.0, targets=["q_proj", "v_proj"])
    system = tiny_ras(lmm=Llava(sizes=SIZES, lora=lora))
    inside = [n for n, p in system.named_parameters() if p.requires_grad and "language_model" in n]
    assert inside and all("lora_" in name for name in inside)


def test_a_frozen_language_model_with_files_of_its_own_stays_in_them(tmp_path: Path) -> None:
    whole = tiny_ras()
    tensors = {f"model.{k}": v for k, v in whole.lmm.model.state_dict().items() if k != "lm_head.weight"}
    stored = {k.removeprefix("model."): v for k, v in tensors.items()}
    write_checkpoint(tmp_path / "base.safetensors", stored, {"system": "llava"}, stored=None)
    lora = LoraSettings(r=2, alpha=4, dropout=0.0)

    def made() -> RAS:
        return tiny_ras(lmm=Llava(sizes=SIZES, base=str(tmp_path / "base.safetensors"), lora=lora))

    system = made()
    held = system.learned_state()
    assert {k for k in held if "language_model" in k} == {k for k in held if "lora_" in k} != set()
    assert not any("vision_tower" in k and "position_ids" not in k for k in held)
    again = made()
    again.load_learned({k: v + 1 for k, v in held.items()}, "here")
    assert torch.equal(again.state_dict()["scorer.head.layers.0.bias"], held["scorer.head.layers.0.bias"] + 1)
    started = tiny_ras(lmm=Llava(sizes=SIZES, start=str(tmp_path / "base.safetensors"), lora=lora))
    assert any("vision_tower" in k and "position_ids" not in k for k in started.learned_state())


def test_lora_names_absent_targets() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Llava(sizes=SIZES, lora=LoraSettings(targets=["nowhere"]))


def test_learned_state_round_trip_and_errors() -> None:
    system = tiny_ras()
    state = {k: v.clone() for k, v in system.learned_state().items()}
    other = tiny_ras()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_learned(state, "x")
    for name, tensor in other.learned_state().items():
        torch.testing.assert_close(tensor, state[name])
    with pytest.raises(ValueError, match="1 missing"):
        tiny_ras().load_learned({k: v for k, v in state.items() if k != "reader.mask_tokenizer.pre"}, "x")
    with pytest.raises(ValueError, match="1 unknown"):
        tiny_ras().load_learned(state | {"more": torch.zeros(1)}, "x")


def test_a_stage_one_file_leaves_the_head_new() -> None:
    system = tiny_ras()
    headless = {k: v for k, v in system.learned_state().items() if not k.startswith("scorer.")}
    before = system.scorer.head.layers[0].weight.clone()
    system.load_learned(headless, "x")
    torch.testing.assert_close(system.scorer.head.layers[0].weight, before)


def test_the_language_model_of_ras_with_other_encoders_is_a_start(tmp_path: Path) -> None:
    first = tiny_ras()
    torch.nn.init.normal_(first.scorer.head.layers[0].weight)  # type: ignore[union-attr, index]
    torch.nn.init.normal_(first.reader.mask_tokenizer.projector[2].weight)
    write_checkpoint(tmp_path / "r.safetensors", first.learned_state(), {"system": "ras"}, stored=torch.float32)
    before, encoders = tiny_ras(), EncoderEnsemble([SinusoidEncoder(grid=8, frequencies=2)])
    torch.manual_seed(0)
    system = RAS(Quarters(), encoders, Llava(sizes=SIZES), language_start=str(tmp_path / "r.safetensors"))
    held, source = system.state_dict(), first.state_dict()
    same = {name for name in held if held[name].shape == source[name].shape and torch.equal(held[name], source[name])}
    assert {name for name in held if ".language_model." in name or name.startswith("scorer.")} <= same
    assert "reader.mask_tokenizer.projector.2.weight" not in same
    assert held["reader.mask_tokenizer.mean"].shape != before.state_dict()["reader.mask_tokenizer.mean"].shape
    with pytest.raises(ValueError, match="does not fit the language model of RAS as configured"):
        tiny_ras(lmm=Llava(sizes=replace(SIZES, ffn=40)), language_start=str(tmp_path / "r.safetensors"))
    with pytest.raises(ValueError, match="start a and language_start b exclude each other"):
        tiny_ras(start="a", language_start="b")


def test_saving_refuses_to_leave_out_what_trains() -> None:
    system: RAS = tiny_ras()
    system.encoders.add_module("encoder_new", torch.nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="encoder_new"):
        system.learned_state()


def test_prompt_longer_than_the_context() -> None:
    system = tiny_ras().eval()
    image = np.zeros((16, 16, 3), np.uint8)
    read = system.read_candidates(image, torch.zeros(2, system.channels))
    with pytest.raises(ValueError, match="fit into the context"):
        system.score_candidates(read, ["mug " * 3000], [torch.zeros(0, system.channels)], 0.5)[0]


def test_autoregressive_loss_and_decoding() -> None:
    system = tiny_ras(scorer="autoregressive")
    batch = tiny_batch(system)
    system.train()
    torch.manual_seed(1)
    cached = system.loss(batch)["loss"]
    cached.backward()
    system.lmm.gradient_checkpointing = True
    torch.manual_seed(1)
    torch.testing.assert_close(system.loss(batch)["loss"], cached, atol=1e-5, rtol=1e-4)
    system.lmm.gradient_checkpointing = False
    system.eval()
    with torch.no_grad():
        logits = system(batch)
    assert logits.shape == (2, len(TEXTS), 5) and (logits[0, :, -1] < -1000).all()


def test_autoregressive_names_what_it_learned() -> None:
    """Overfit one image: decoding must then name exactly the targets."""
    system = tiny_ras(scorer="autoregressive").train()
    batch = tiny_batch(system)
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        system.loss(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        chosen = system.eval()(batch) > 0
    assert ((chosen == (batch.labels > 0)) | (batch.labels < 0)).all()


@pytest.mark.parametrize("mode", MODES)
def test_parallel_learns_a_batch(mode: str) -> None:
    system = tiny_ras(second_pass=mode).train()
    batch = tiny_batch(system)
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(system.loss(batch)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1].detach()) < 0.7 * float(losses[0].detach())
    report = system.eval().validate(batch)
    assert all(0 <= float(v) <= 1 for k, v in report.items() if k != "loss")


@pytest.mark.parametrize("make", [tiny_ras, tiny_llmseg])
def test_what_comes_from_files_trains_in_training_mode(make: Any, tmp_path: Path) -> None:
    """transformers gives models in evaluation mode, in which no activation is recomputed; encoders stay in it."""
    save(Llava(sizes=SIZES), tmp_path)
    system = make(lmm=Llava(model=str(tmp_path), gradient_checkpointing=True))
    assert all(layer.training and layer.gradient_checkpointing for layer in system.lmm.language_model.layers)
    assert not system.lmm.vision_tower.training and not system.encoders.training
    if make is tiny_ras:
        frozen = make(lmm=Llava(model=str(tmp_path)), scorer="decoder")
        assert not any(module.training for module in frozen.lmm.modules()) and frozen.scorer.decoder.training
