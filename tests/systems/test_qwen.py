"""RAS and LLM-Seg on a language model with images at their own resolution: Qwen2.5-VL at a tiny size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.lmm.lora import LoraSettings
from maskselect.lmm.qwen_vl import QwenVl
from maskselect.predictor import Model
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.groups import Annotated, Query
from maskselect.systems import scoring
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.loading import load_system
from maskselect.systems.preparing import FeatureStore, LabelRule, compute, fingerprint, make_batch
from maskselect.systems.ras import RAS
from tests.systems.tiny import QWEN, TEXTS, tiny_batch, tiny_llmseg, tiny_ras

IMAGE = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)


def qwen(**arguments: Any) -> QwenVl:
    torch.manual_seed(0)
    return QwenVl(sizes=QWEN, **arguments)


def ras(**arguments: Any) -> RAS:
    return tiny_ras(lmm=qwen(), **arguments)


def trained(system: RAS | LLMSeg, steps: int = 30) -> tuple[float, float]:
    """The losses before and after some steps on one batch."""
    batch, losses = tiny_batch(system), []
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 3e-3)
    for step in range(steps):
        torch.manual_seed(step % 5)
        optimizer.zero_grad()
        losses.append(system.train().loss(batch)["loss"])
        losses[-1].backward()
        optimizer.step()
    return float(losses[0].detach()), float(losses[-1].detach())


@pytest.mark.parametrize("mode", ["causal", "mutual"])
def test_cached_images_of_different_sizes_equal_one_packed_row(mode: Any) -> None:
    system = ras(second_pass=mode).eval()
    batch = tiny_batch(system)
    with torch.no_grad():
        cached, alone = system(batch), system(batch.row(1))
    torch.testing.assert_close(cached[1:], alone, atol=1e-5, rtol=1e-4)
    system.lmm.gradient_checkpointing = True  # forbids caches, so everything runs in one row
    torch.testing.assert_close(system(batch).detach(), cached, atol=1e-5, rtol=1e-4)


def test_what_stands_behind_the_image_begins_behind_its_longer_side() -> None:
    system = ras().eval()
    with torch.no_grad():
        read = scoring.read_images(system.reader, tiny_batch(system))
    before = len(system.reader.chat[True].begin)
    for prefix, grid, candidates in zip(read.prefixes, ((2, 2), (1, 3)), (4, 5), strict=True):
        places = [place for place, kind in enumerate(prefix.kinds) if kind == int(scoring.Slot.IMAGE)]
        assert len(places) == grid[0] * grid[1] and {prefix.positions[place] for place in places} == {before}
        assert prefix.end == before + max(grid) + 1 + 2 * candidates  # <|vision_end|>, each with its pre-token
        prompt = system.reader.prompt("stars", prefix.end)
        answer = scoring.sequence.answer_segment(list(range(candidates)), prompt.end, "mutual")
        assert set(answer.positions) == {prefix.end + len(prompt)}


def test_many_prompts_equal_one_at_a_time() -> None:
    system = ras().eval()
    batch = tiny_batch(system)
    read = system.read_candidates(IMAGE, batch.candidate_features[1])
    together = system.score_candidates(read, TEXTS, batch.reference_features[1], 0.5)[0]
    apart = [
        system.score_candidates(read, [t], [r], 0.5)[0] for t, r in zip(TEXTS, batch.reference_features[1], strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-4)
    larger = system.read_candidates(np.tile(IMAGE, (2, 1, 1)), batch.candidate_features[1])
    assert not torch.allclose(
        system.score_candidates(larger, TEXTS, batch.reference_features[1], 0.5)[0], together, atol=1e-5
    )


@pytest.mark.parametrize("scorer", ["parallel", "autoregressive"])
def test_ras_learns_a_batch_and_answers(scorer: Any) -> None:
    system = ras(scorer=scorer)
    first, last = trained(system)
    assert last < 0.8 * first
    merger = system.lmm.projector.mlp[0].weight  # type: ignore[union-attr,index]
    assert merger.grad is not None and merger.grad.abs().sum() > 0
    assert not any(p.requires_grad for part in system.lmm.visual_parts for p in part.parameters())
    groups = Model(system).select_many(IMAGE, ["the red mugs", "stars"], threshold=0.0)
    assert [len(group.candidate_scores) for group in groups] == [4, 4]
    assert all(np.isfinite(group.candidate_scores).all() for group in groups)


def test_stage_one_captions_in_the_assistants_turn() -> None:
    system = ras(stage=1, stage_1_trains="all", image_tokens=False)
    trained(system, 60)
    batch = tiny_batch(system)
    told = [system.eval().caption(batch.candidate_features[n][batch.candidate_valid[n]]) for n in range(2)]
    assert told == batch.captions
    closing = system.reader.chat[False].closing
    assert system.reader.caption_prefix([0]).values[-len(closing) :] == closing


def test_llm_seg_learns_a_batch_and_says_seg() -> None:
    lora = LoraSettings(r=4, alpha=8, dropout=0.0)
    system = tiny_llmseg(lmm=qwen(lora=lora), phrasing="plain")
    assert not any(p.requires_grad for p in system.lmm.projector.parameters())
    first, last = trained(system, 60)
    assert last < 0.7 * first
    group = Model(system.eval()).select(IMAGE, TEXTS[0], threshold=0.0)
    assert len(group.candidate_scores) == 4 and group.candidate_scores.max() > 0  # 0 for an answer without [SEG]


def test_llm_seg_hears_the_same_with_and_without_a_cache() -> None:
    system = tiny_llmseg(lmm=qwen(), phrasing="plain").eval()
    batch, losses = tiny_batch(system), []
    for again in (False, True):
        system.lmm.gradient_checkpointing = again
        losses.append(system.loss(batch)["loss"].detach())
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-4)


def test_records_keep_the_grid_and_batches_pad_what_is_shorter(tmp_path: Path) -> None:
    system = ras()
    masks = torch.zeros(1, 90, 120, dtype=torch.bool)
    masks[0, :40, :40] = True
    wide = compute(system, Annotated(IMAGE, masks))
    tall = compute(system, Annotated(np.rot90(IMAGE, axes=(0, 1))[:, :60].copy(), masks.transpose(1, 2)[..., :60]))
    assert wide.image_grid is not None and tall.image_grid is not None
    assert wide.image_grid.tolist() == [3, 4] and tall.image_grid.tolist() == [4, 2]
    assert wide.image_features.shape == (12, 64) and tall.image_features.shape == (8, 64)
    queries = [[Query("a", (), (0,))]] * 2
    batch = make_batch([wide, tall], queries, None, LabelRule())
    assert batch.image_features is not None and batch.image_features.shape == (2, 12, 64)
    assert batch.image_grids is not None and batch.image_grids.tolist() == [[3, 4], [4, 2]]
    assert torch.isfinite(system.loss(batch)["loss"])
    source = SceneGroups("val", 3, 1)
    first, again = (FeatureStore(system, tmp_path).record(source, 0) for _ in range(2))
    assert first.image_grid is not None and torch.equal(first.image_grid, again.image_grid)
    plain = FeatureStore(tiny_ras(), tmp_path).record(source, 0)
    assert plain.image_grid is None


def test_frozen_features_stay_valid_while_the_merger_learns() -> None:
    system, smaller = ras(), tiny_ras(lmm=qwen(max_pixels=8 * 784))
    before = fingerprint(system)
    assert fingerprint(smaller) != before
    with torch.no_grad():
        next(system.lmm.projector.parameters()).add_(1.0)
        assert fingerprint(system) == before
        next(system.lmm.visual_parts[0].parameters()).add_(1.0)
    assert fingerprint(system) != before


def test_a_checkpoint_comes_back_by_its_card(tmp_path: Path) -> None:
    parts = "maskselect.encoders"
    encoder = {"class_path": f"{parts}.position.SinusoidEncoder", "init_args": {"grid": 8, "frequencies": 3}}
    ensemble = {"class_path": f"{parts}.ensemble.EncoderEnsemble", "init_args": {"encoders": [encoder]}}
    lmm = {"class_path": "maskselect.lmm.qwen_vl.QwenVl", "init_args": {"sizes": vars(QWEN)}}
    proposer = {"class_path": "maskselect.proposers.regions.RegionProposer"}
    given = {"proposer": proposer, "encoders": ensemble, "lmm": lmm}
    system = ras()
    card = {"system": "ras", "config": {"class_path": "maskselect.systems.ras.RAS", "init_args": given}}
    write_checkpoint(tmp_path / "ras.safetensors", system.learned_state(), card, stored=None)
    loaded, _ = load_system(tmp_path)
    assert isinstance(loaded, RAS)
    batch = tiny_batch(system)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(batch), system.eval()(batch))
