"""InstructSeg: training, answers on pictures and clips, layouts, given candidates, and where training starts."""

import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.decoders.mask2former import MaskDecoder, ObjectDecoder, PixelDecoder
from maskselect.lmm.llava import Llava
from maskselect.predictor import Model
from maskselect.structures.clip import ClipMasks
from maskselect.structures.clip_groups import AnnotatedClip
from maskselect.structures.groups import PrepareSettings, Query
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import GroupLearner, System
from maskselect.structures.sample import Prompt
from maskselect.systems.cell_votes import cell_loss, cell_votes, place_cells
from maskselect.systems.instruct_batches import draw_frames, frames_around
from maskselect.systems.instructseg import Asked, InstructReading, InstructSeg
from maskselect.systems.linking import ClipReading
from maskselect.tokens.instruction_rows import Wording
from maskselect.tokens.sequence import Slot
from tests.systems.test_text4seg import Quadrants, asked, tiny
from tests.systems.tiny import SIZES
from tests.systems.tiny_instructseg import tiny_instructseg

CELLS: dict[str, Any] = {
    "layout": "image_after_prompt", "cell_positions": True, "cell_layer": 1, "cell_weight": 1.0,
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "shared_image": {"layout": "shared_image"},
    "published": {"layout": "published"},
    "image_after_prompt": {"layout": "image_after_prompt"},
    "cells": CELLS,
    "presence": CELLS | {"presence_weight": 1.0},
}
IMAGE = Quadrants().load(0).image


class Moving:
    """A clip of six frames: the first quadrant's mask is absent from frame 0, and moves down by one pixel a frame."""

    def __len__(self) -> int:
        return 1

    def image_id(self, item: int) -> str:
        return "moving"

    def version(self, item: int) -> str:
        return ""

    def prompts_of(self, item: int) -> int:
        return 2

    def load_clip(self, item: int) -> AnnotatedClip:
        frames, masks = [], []
        for number in range(6):
            mask = torch.zeros(2, 32, 32, dtype=torch.bool)
            mask[0, number : number + 8, :8] = number > 0
            mask[1, 20:28, 20:28] = True
            masks.append(mask)
            frames.append(np.stack([mask[0], mask[1], mask[0] ^ mask[1]], -1).astype(np.uint8) * 200)
        return AnnotatedClip(Frames(frames), masks)

    def queries(self, item: int, extra: object, count: int, rng: object) -> list[Query]:
        return [Query("red", (), (0,)), Query("not <mask-ref>", (0,), (1,), reference_frames=(3,))][:count]


class Frames(list[np.ndarray]):
    fps, size = 8.0, (32, 32)


def batch_of(system: InstructSeg, pictures: int = 1, training: bool = True) -> Any:
    preparer = system.preparer(PrepareSettings(), training)
    return preparer.collate([preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5) for _ in range(pictures)])


@pytest.fixture(scope="module")
def learned() -> InstructSeg:
    """A tiny system that knows the answers of one picture by heart."""
    system = tiny_instructseg(learned_queries=True, candidate_weight=1.0)
    batch = batch_of(system)
    optimiser = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=4e-3)
    for _ in range(250):
        loss = system.loss(batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return system.eval()


def test_is_a_system_and_a_learner() -> None:
    system = tiny_instructseg()
    assert isinstance(system, System) and isinstance(system, GroupLearner)
    assert system.uses_threshold and not tiny_instructseg(selection="best").uses_threshold
    with pytest.raises(ValueError, match="expected the 6 queries of mask_decoder"):
        tiny_instructseg(queries=5)
    with pytest.raises(ValueError, match="expected learned_queries true"):
        tiny_instructseg(object_weight=1.0)


def test_answers_what_it_learned(learned: InstructSeg) -> None:
    annotated = Quadrants().load(0)
    answers = learned.answer(learned.read(annotated.image), asked(learned), 0.4)
    for query, answer in zip(Quadrants.prompts, answers, strict=True):
        assert isinstance(answer.masks, Tensor) and answer.pool is not None and answer.pool_scores is not None
        assert len(answer.masks) == len(query.targets), query.text
        for target in query.targets:
            overlaps = [(m & annotated.masks[target]).sum() / (m | annotated.masks[target]).sum() for m in answer.masks]
            assert max(overlaps) > 0.8, query.text
        assert (answer.scores.diff() <= 0).all() and answer.text is None
    none = learned.answer(learned.read(annotated.image), asked(learned), 1.01)
    assert all(len(answer.masks) == 0 for answer in none)


def test_the_best_mask_is_returned_whatever_its_score(learned: InstructSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "selection", "best")
    answers = learned.answer(learned.read(IMAGE), asked(learned), None)
    assert [len(answer.masks) for answer in answers] == [1] * len(answers)
    for answer in answers:
        assert answer.pool_scores is not None and answer.scores[0] == answer.pool_scores.max()


def test_a_margin_leaves_out_what_is_far_below_the_best(learned: InstructSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, prompts = learned.read(IMAGE), asked(learned)
    monkeypatch.setattr(learned, "duplicates_iou", None)
    assert learned.selects_by_score and not tiny_instructseg(margin=1.0).selects_by_score
    plain = learned.answer(reading, prompts, 0.0)
    for margin in (0.0, 1.0, 50.0):
        monkeypatch.setattr(learned, "margin", margin)
        for one, other in zip(plain, learned.answer(reading, prompts, 0.0), strict=True):
            logits = one.scores.logit(eps=1e-6)
            assert torch.equal(other.scores, one.scores[logits >= logits[0] - margin])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_of_one_picture_do_not_change_each_other(layout: str) -> None:
    system = tiny_instructseg(**LAYOUTS[layout]).eval()
    reading, prompts = system.read(IMAGE), asked(system)
    together = system.answer(reading, prompts * 4, 0.0)
    for prompt, answer in zip(prompts * 4, together, strict=True):
        (alone,) = system.answer(reading, [prompt], 0.0)
        assert alone.pool_scores is not None and answer.pool_scores is not None
        torch.testing.assert_close(alone.pool_scores, answer.pool_scores, atol=1e-5, rtol=1e-4)
        assert isinstance(alone.masks, Tensor) and torch.equal(alone.masks, answer.masks)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_the_same_with_recomputed_activations(layout: str) -> None:
    results = []
    for recompute in (False, True):
        settings = {"candidate_weight": 0.5, "object_weight": 0.5, "learned_queries": True, "text_loss": "always"}
        system = tiny_instructseg(recompute, **LAYOUTS[layout], **settings)
        losses = system.loss(batch_of(system, 2))
        losses["loss"].backward()
        grads = {name: p.grad for name, p in system.named_parameters() if p.grad is not None}
        missing = [name for name, p in system.named_parameters() if p.requires_grad and p.grad is None]
        assert not [name for name in missing if ".pre" not in name], missing
        results.append({**losses, **{name: grad for name, grad in grads.items() if "layers.0" in name}})
    torch.testing.assert_close(results[0], results[1], atol=2e-4, rtol=2e-3)


def test_the_text_loss_is_on_replies_alone_or_on_all_answers() -> None:
    system = tiny_instructseg()
    batch = batch_of(system)
    assert float(system.loss(batch)["text"].detach()) == 0
    batch.replies = [["red is here", "", "", "", ""]]
    with_words = float(system.loss(batch)["text"].detach())
    assert with_words > 0
    batch.replies = [["red is here", "blue is there", "", "", ""]]
    assert float(system.loss(batch)["text"].detach()) != with_words
    assert "text" not in tiny_instructseg(text_loss="never").loss(batch)
    batch.words = [[("what is red?", "the first one")]]
    assert float(system.loss(batch)["words"].detach()) > 0


def test_words_around_a_prompt_depend_on_visual_and_prompt() -> None:
    system = tiny_instructseg(phrasing="sentences", layout="published")
    texts = {}
    for visual, prompt in (("image", "red"), ("image", "which is red?"), ("clip", "red")):
        (segment,) = system._rows_for(visual, prompt).prompt(prompt, 0, 4, 0)  # type: ignore[arg-type]
        ids = [value for kind, value in zip(segment.kinds, segment.values, strict=True) if kind == Slot.TEXT]
        texts[visual, prompt] = system.lmm.decode(ids)
    assert "picture" in texts["image", "red"] and "frame" in texts["clip", "red"]
    assert "question" in texts["image", "which is red?"] and "question" not in texts["image", "red"]
    words = Wording("<temporal><image>find <refer>", "here: [SEG]<seg>")
    kinds = ("image referring", "image reasoning", "clip referring", "clip reasoning")
    own = tiny_instructseg(wordings=dict.fromkeys(kinds, words), layout="published")
    (segment,) = own._rows_for("clip", "red").prompt("red", 0, 4, 2)
    ids = [value for kind, value in zip(segment.kinds, segment.values, strict=True) if kind == Slot.TEXT]
    assert "find" in own.lmm.decode(ids)
    with pytest.raises(ValueError, match="expected one for clip 'reasoning' too"):
        tiny_instructseg(wordings=dict.fromkeys(kinds[:3], words), layout="published")


def test_a_question_in_quotation_marks_is_answered_in_words() -> None:
    system = tiny_instructseg().eval()
    answers = system.answer(system.read(IMAGE), [Prompt('"what is it?"', torch.zeros(0, 32, 32)), *asked(system)], 0.0)
    assert answers[0].text is not None and not len(answers[0].masks)
    assert all(answer.text is None for answer in answers[1:])


def test_given_candidates_are_scored_beside_its_own_masks(learned: InstructSeg) -> None:
    annotated = Quadrants().load(0)
    extra = MaskSet(annotated.masks, torch.ones(4), "given")
    prompt = Prompt("blue", annotated.masks[:0])
    (own,), (both,) = (learned.answer(learned.read(IMAGE, given), [prompt], 0.4) for given in (None, extra))
    assert own.pool is not None and both.pool is not None and both.pool_scores is not None
    assert len(both.pool) == len(own.pool) + 4
    assert int(both.pool_scores[-4:].argmax()) == 3 and both.pool_scores[-1] > 0.5
    assert torch.equal(both.pool.masks[-4:], annotated.masks)
    with pytest.raises(ValueError, match="expected none with a clip"):
        learned.read(Frames([IMAGE]), extra)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ovp_on_images", [True, False])
def test_a_picture_is_a_clip_of_one_frame(layout: str, ovp_on_images: bool) -> None:
    system = tiny_instructseg(**LAYOUTS[layout], ovp_on_images=ovp_on_images).eval()
    model = Model(system, 0.0)
    prompts, references = [p.text for p in asked(system)], [list(p.references.numpy()) for p in asked(system)]
    groups = model.select_many(IMAGE, prompts, references)
    clips = model.select_video_many([IMAGE], prompts, references)
    for group, clip in zip(groups, clips, strict=True):
        assert len(group) == len(clip) > 0
        assert np.array_equal(np.sort(group.masks.reshape(len(group), -1).sum(1)), np.sort(clip.frame(0).sum((1, 2))))
        np.testing.assert_allclose(group.scores, clip.scores, atol=1e-5)


def test_a_clip_is_read_frame_by_frame_and_frames_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    system = tiny_instructseg().eval()
    frames = Moving().load_clip(0).clip
    asked_for: list[int] = []
    encoded = InstructSeg.image_features
    held: list[int] = []

    class Counting(Frames):
        def __getitem__(self, frame: Any) -> Any:
            asked_for.append(frame)
            return list.__getitem__(self, frame)

    def count(self: InstructSeg, images: Tensor) -> Tensor:
        held.append(len(images))
        return encoded(self, images)

    monkeypatch.setattr(InstructSeg, "image_features", count)
    reading = system.read(Counting(frames))
    assert isinstance(reading, ClipReading)
    (answer,) = system.answer(reading, [Prompt("red", torch.zeros(0, 32, 32))], 0.0)
    assert isinstance(answer.masks, ClipMasks) and answer.masks.frames == 6
    # Each frame passes the vision tower once.
    assert sum(held) == 6 and max(held) == 1 and set(asked_for) == set(range(6))


class Noise:
    """A long clip that keeps no frame, and notes the peak of the memory of this process (in KiB) when one is read."""

    fps, size = 24.0, (240, 320)

    def __init__(self, frames: int) -> None:
        self.frames, self.peaks = frames, [0] * frames

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, frame: int) -> np.ndarray:
        self.peaks[frame] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return np.random.default_rng(frame).integers(0, 255, (*self.size, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss is that of Linux")
def test_a_long_clip_takes_no_more_memory_than_a_short_one(learned: InstructSeg) -> None:
    clip = Noise(3000)
    none_chosen = 1.1  # masks that are chosen are kept
    (answer,) = learned.answer(ClipReading(clip), [Prompt("red", torch.zeros(0, 240, 320).bool())], none_chosen)
    assert len(answer.masks) == 0
    frames = 2500 * 240 * 320 * 3 / 1024
    assert clip.peaks[-1] - clip.peaks[500] < 0.05 * frames


def test_the_frames_around_a_key_frame_matter() -> None:
    system = tiny_instructseg().eval()
    frames = list(Moving().load_clip(0).clip)
    scores = []
    for changed in (None, 5, 3):
        clip = Frames([np.full_like(f, 255) if n == changed else f for n, f in enumerate(frames)])
        seen: list[Tensor] = []
        answer = system._answers
        system._answers = lambda *a, keep=seen, call=answer: keep.append(out := call(*a)) or out  # type: ignore[method-assign, func-returns-value]
        system.answer(system.read(clip), [Prompt("red", torch.zeros(0, 32, 32))], 0.0)
        system._answers = answer  # type: ignore[method-assign]
        scores.append(seen[2][0].pool_scores)  # key frame 2, with frames 1 and 3 around it
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2], atol=1e-7)


def test_frames_around() -> None:
    """As published for four frames (spec, section 1.10), clamped for short clips."""
    for length in range(1, 9):
        for key in range(length):
            found = frames_around(key, length, 4)
            if length == 1:
                expected = [0]
            elif length < 5:
                expected = [min(n, length - 1) for n in range(5) if n != key]
            elif key < 2:
                expected = [*range(key), *range(key + 1, 5)]
            elif key >= length - 2:
                expected = [*range(length - 5, key), *range(key + 1, length)]
            else:
                expected = [key - 2, key - 1, key + 1, key + 2]
            assert found == expected, (key, length)
    assert frames_around(3, 9, 0) == [3] and len(frames_around(3, 20, 8)) == 8


def test_drawn_frames_are_near_each_other() -> None:
    rng, backwards = np.random.default_rng(0), 0
    for _ in range(300):
        key, around = draw_frames(40, 4, rng)
        ordered = [*around[:2], key, *around[2:]]
        assert len(set(ordered)) == 5 and ordered in (sorted(ordered), sorted(ordered)[::-1])
        backwards += ordered[0] > ordered[-1]
        assert np.diff(sorted(ordered)).max() <= 9
    assert 60 < backwards < 125  # 30 % of 300
    key, around = draw_frames(2, 4, rng)
    assert len(around) == 4 and {key, *around} <= {0, 1}


def test_items_of_clips() -> None:
    system = tiny_instructseg()
    preparer = system.preparer(PrepareSettings(), True)
    items = [preparer.prepare(Moving(), 0, np.random.default_rng(seed), 2) for seed in range(6)]  # type: ignore[arg-type]
    for item in items:
        assert len(item.around) == 2 and max(item.around) < len(item.frames)
        # Targets count among the objects that are visible on the key frame.
        assert item.objects.flatten(1).any(1).all()
        assert item.queries[0].targets == ((0,) if len(item.objects) == 2 else ())
        assert item.queries[1].targets == (len(item.objects) - 1,)
        assert item.references[1].shape == (1, 32, 32) and item.references[1][0, 3:11, :8].all()
    batch = preparer.collate([*items, preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5)])
    assert batch.keys[-1] == len(batch.frames) - 1 and batch.around[-1] == [batch.keys[-1]]
    losses = system.loss(batch)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"].detach())
    still = system.preparer(PrepareSettings(), False).prepare(Moving(), 0, np.random.default_rng(0), 2)  # type: ignore[arg-type]
    assert torch.equal(still.picture[:, :64, :64].float().mean(0) > 0, still.picture.float().mean(0) > 0)


def test_saves_and_loads(learned: InstructSeg, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "i.safetensors", learned.learned_state(), {"system": learned.name})
    start = str(tmp_path / "i.safetensors")
    again = tiny_instructseg(learned_queries=True, candidate_weight=1.0, start=start).eval()
    answers = [s.answer(s.read(IMAGE), asked(s), 0.0) for s in (learned, again)]
    for one, other in zip(*answers, strict=True):
        assert one.pool_scores is not None and other.pool_scores is not None
        torch.testing.assert_close(one.pool_scores, other.pool_scores, atol=2e-2, rtol=2e-2)


def test_cells_vote_for_the_masks_that_cover_them() -> None:
    """The mean under a mask of a picture of 64 x 32 pixels, in the left half of the square."""
    cells = torch.tensor([[[1.0, 1.0], [5.0, 5.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    masks = torch.zeros(2, 3, 16, 16)
    masks[:, 0, :4, :8] = 1  # the upper quarter of the picture: above the centres of its upper cells
    masks[:, 1, :, :8] = 0.5
    masks[:, 2] = 1
    placed = place_cells(cells, [(64, 32)] * 2, 64, (16, 16))
    votes = cell_votes(placed, masks)
    assert votes.tolist() == [[pytest.approx(v) for v in row] for row in ([1, 3, 1.5], [-1, -1, -0.5])]
    of_all = cell_votes(placed, masks[0])
    other = cell_votes(place_cells(cells, [(64, 32), (32, 64)], 64, (16, 16)), masks)
    assert torch.equal(of_all, votes)
    assert torch.equal(other[0], votes[0]) and other[1, 2] == pytest.approx(-0.5) and other[1, 1] == pytest.approx(-0.5)


def test_cells_are_trained_on_what_the_targets_cover() -> None:
    cells = torch.zeros(2, 2, 2)
    targets = [torch.zeros(2, 64, 64, dtype=torch.bool), torch.zeros(0, 64, 64, dtype=torch.bool)]
    targets[0][0, :32, :32] = targets[0][1, 16:32, 32:64] = True  # of a picture of 64 x 64: 1 and a half
    loss = cell_loss(cells, targets, [(64, 64), (64, 32)])
    assert float(loss) == pytest.approx(np.log(2))
    confident = torch.tensor([[[9.0, 0.0], [-9.0, -9.0]], [[-9.0, -9.0], [-9.0, -9.0]]])
    expected = (np.log(2) + 7 * np.log1p(np.exp(-9))) / 8
    assert float(cell_loss(confident, targets, [(64, 64), (64, 32)])) == pytest.approx(expected, rel=1e-4)
    system = tiny_instructseg(**CELLS, candidate_weight=1.0)
    losses = system.loss(batch_of(system))
    losses["loss"].backward()
    assert system.cell_head is not None and system.cell_factor is not None and system.cell_factor.grad is not None
    assert all(p.grad is not None and p.grad.any() for p in system.cell_head.parameters()) and "cells" in losses
    with pytest.raises(ValueError, match="expected layout 'image_after_prompt' and a cell_layer of 1 to 2"):
        tiny_instructseg(**CELLS | {"layout": "shared_image"})


def test_presence_is_a_factor_of_every_score(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "i.safetensors", tiny_instructseg().learned_state(), {"system": "instructseg"})
    start = str(tmp_path / "i.safetensors")  # which has no such head
    plain, system = tiny_instructseg(start=start).eval(), tiny_instructseg(presence_weight=1.0, start=start).eval()
    assert system.presence_head is not None
    with torch.no_grad():
        for parameter in system.presence_head.parameters():
            parameter.zero_()
        system.presence_head.layers[2].bias.fill_(1.0)
    prompts, extra = asked(system)[:2], MaskSet(Quadrants().load(0).masks, torch.ones(4), "given")
    pairs = zip(*(one.answer(one.read(IMAGE, extra), prompts, 0.0) for one in (plain, system)), strict=True)
    for one, other in pairs:
        assert one.pool_scores is not None and other.pool_scores is not None and len(one.pool_scores) > 4
        expected = one.pool_scores * torch.tensor(1.0).sigmoid()
        torch.testing.assert_close(other.pool_scores, expected, atol=1e-5, rtol=1e-5)


def test_presence_is_learned() -> None:
    """One of five prompts has no target."""
    system = tiny_instructseg(presence_weight=1.0)
    batch = batch_of(system)
    assert [bool(own.any()) for own in system._targets(batch)].count(False) == 1
    optimiser = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=4e-3)
    for _ in range(100):
        losses = system.loss(batch)
        optimiser.zero_grad()
        losses["presence"].backward()
        optimiser.step()
    assert float(losses["presence"].detach()) < 0.1


def test_training_starts_from_text4seg(tmp_path: Path) -> None:
    arguments = {name: value for name, value in CELLS.items() if name != "layout"} | {"image_place": "after_prompt"}
    written = tiny("text4segpp", **arguments)
    with torch.no_grad():
        for parameter in written.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    write_checkpoint(
        tmp_path / "t.safetensors", written.learned_state(), {"system": "text4segpp"}, stored=torch.float32
    )
    system = tiny_instructseg(**CELLS, start=str(tmp_path / "t.safetensors"))
    held, source = system.state_dict(), written.state_dict()
    words = "reader.lmm.model.model.language_model.embed_tokens.weight"
    shared = {k for k in held if k.startswith(("reader.", "cell_head.")) and k != words and k in source}
    assert {"reader.row_positions", "cell_head.layers.2.weight"} <= shared and len(shared) > 20
    assert all(torch.equal(held[name], source[name]) for name in shared if "lm_head" not in name)
    count = len(Llava(sizes=SIZES).tokenizer)
    assert torch.equal(held[words][:count], source[words][:count]) and len(held[words]) == count + 1
    without = tiny_instructseg(layout="image_after_prompt", start=str(tmp_path / "t.safetensors"))
    assert without.cell_head is None and without.reader.row_positions is None


def test_training_starts_from_the_decoders_of_objects(tmp_path: Path) -> None:
    objects = ObjectDecoder(PixelDecoder([8, 8, 16], 16, 2, 2, 1, 32, 16), MaskDecoder(16, 2, 32, 2, 6, 16, 2))
    write_checkpoint(tmp_path / "o.safetensors", objects.state_dict(), {"system": "mask2former"})
    system = tiny_instructseg(learned_queries=True, decoder_start=str(tmp_path / "o.safetensors")).eval()
    assert system.query_feat is not None
    reading = system.read(IMAGE)
    assert isinstance(reading, InstructReading)
    with torch.no_grad():
        expected = objects.mask_decoder(reading.pixels, objects.query_feat[None], objects.object_embed[None, None])
        # The language model's part of the queries begins at zero.
        found = system._decoded(
            *system._states(
                system._tokens(
                    reading.features, [one := Asked("image", ["red"], [torch.zeros(0, system.lmm.vision_width)], [""])]
                ),
                reading.images,
                [one],
                [reading.features.new_zeros(0, system.lmm.width)],
            ),
            reading.pixels,
            reading.vision,
            torch.zeros(1, dtype=torch.int64),
            True,
        )[0]
    torch.testing.assert_close(found.masks[-1], expected.masks[-1], atol=2e-2, rtol=2e-2)
    with pytest.raises(ValueError, match="has no mask tokens; expected one of RAS or of InstructSeg"):
        tiny_instructseg(start=str(tmp_path / "o.safetensors"))


@pytest.mark.parametrize("other", ["text4seg", "instructseg"])
def test_a_start_of_another_kind_is_refused(other: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "o.safetensors", {"x": torch.zeros(1)}, {"system": "mask2former"})
    make: Any = tiny_instructseg if other == "instructseg" else partial(tiny, "text4seg")
    with pytest.raises(ValueError, match="has no mask tokens; expected one of RAS or of"):
        make(start=str(tmp_path / "o.safetensors"))
