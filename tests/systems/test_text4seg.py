"""Text4Seg and Text4Seg++: training, answers, grammar, references, clips, and where training starts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.codecs.descriptors import DescriptorCodec
from maskselect.encoders.ensemble import EncoderEnsemble
from maskselect.encoders.grid_tower import GridTower
from maskselect.encoders.position import SinusoidEncoder
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings
from maskselect.predictor import Model
from maskselect.structures.groups import Annotated, PrepareSettings, Query
from maskselect.structures.protocols import GroupLearner, System, VisionTower
from maskselect.structures.sample import Prompt
from maskselect.systems.answering import LookAhead, forced_answers, generate_texts
from maskselect.systems.text4seg import PictureReading, Text4Seg
from maskselect.systems.writing import GrammarProcessor, TokenTexts
from tests.systems.test_refining import Corner
from tests.systems.tiny import SIZES, tiny_ras

NONE = torch.zeros(0, 32, 32, dtype=torch.bool)
CODECS: dict[str, Any] = {
    "text4segpp": BoxwiseCodec(bins=4, longest=3),
    "text4seg": DescriptorCodec(grid=4, special_tags=True),
}


class Quadrants:
    """One picture with four masks, and prompts for some of them."""

    prompts = (
        Query("red", (), (0,)),
        Query("blue", (), (3,)),
        Query("the pair", (), (1, 2)),
        Query("like <mask-ref>", (1,), (2,)),
        Query("stars", (), ()),
    )

    def __len__(self) -> int:
        return 1

    def image_id(self, item: int) -> str:
        return "quadrants"

    def version(self, item: int) -> str:
        return "1"

    def prompts_of(self, item: int) -> int:
        return len(self.prompts)

    def load(self, item: int) -> Annotated:
        image = np.zeros((32, 32, 3), np.uint8)
        masks = torch.zeros(4, 32, 32, dtype=torch.bool)
        for number, mask in enumerate(masks):
            y, x = divmod(number, 2)
            mask[16 * y : 16 * y + 16, 16 * x : 16 * x + 8] = True
            image[mask.numpy()] = 60 * number + 50
        return Annotated(image, masks)

    def queries(self, item: int, extra: object, count: int, rng: object) -> list[Query]:
        return list(self.prompts[:count])

    def caption(self, item: int, extra: object, rng: object) -> str:
        raise ValueError("no captions")


def tiny(variant: str, **arguments: Any) -> Text4Seg:
    torch.manual_seed(0)
    label = "region" if variant == "text4segpp" else "target"
    settings = {"variant": variant, "label": label, "side": 32, "longest": 160} | arguments
    return Text4Seg(Llava(sizes=SIZES), CODECS[variant], **settings)


def asked(system: Text4Seg) -> list[Prompt]:
    annotated = Quadrants().load(0)
    return [Prompt(q.text, annotated.masks[list(q.references)]) for q in Quadrants.prompts]


PLACES: dict[str, dict[str, Any]] = {
    "before_prompt": {},
    "after_prompt": {
        "image_place": "after_prompt",
        "cell_positions": True,
        "cell_layer": 1,
        "cell_weight": 1.0,
        "look_ahead": 2,
    },
}


@pytest.fixture(scope="module", params=[(variant, place) for variant in CODECS for place in PLACES], ids="-".join)
def learned(request: pytest.FixtureRequest) -> Text4Seg:
    """A tiny system that knows the answers of one picture by heart."""
    variant, place = request.param
    system = tiny(variant, **PLACES[place])
    preparer = system.preparer(PrepareSettings(), True)
    batch = preparer.collate([preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5)])
    optimiser = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(300):
        loss = system.loss(batch)["text"]
        if float(loss.detach()) < 2e-3:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 2e-2
    return system.eval()


def test_is_a_system_and_a_learner() -> None:
    system = tiny("text4segpp")
    assert isinstance(system, System) and isinstance(system, GroupLearner)
    assert (system.name, system.paper) == ("text4segpp", "2509.06321")
    with pytest.raises(ValueError, match="expected phrasing 'plain'"):
        tiny("text4seg", phrasing="sentences", constrained=True)
    with pytest.raises(ValueError, match="has no candidates"):
        system.read(np.zeros((32, 32, 3), np.uint8), extra=object())  # type: ignore[arg-type]


def test_answers_what_it_learned(learned: Text4Seg) -> None:
    annotated = Quadrants().load(0)
    answers = learned.answer(learned.read(annotated.image), asked(learned), None)
    for query, answer in zip(Quadrants.prompts, answers, strict=True):
        expected = annotated.masks[list(query.targets)]
        assert answer.failure is None and answer.pool is None and answer.text is not None
        assert isinstance(answer.masks, Tensor)
        assert torch.equal(answer.masks.any(0), expected.any(0)), answer.text
        assert len(answer.masks) == (len(query.targets) if learned.name == "text4segpp" else min(1, len(query.targets)))
        assert (answer.scores > 0.9).all() and (answer.scores.diff() <= 0).all()
    higher = learned.answer(learned.read(annotated.image), asked(learned), 1.01)
    assert all(len(answer.masks) == 0 for answer in higher)


def test_prompts_of_one_picture_do_not_change_each_other(learned: Text4Seg) -> None:
    reading, prompts = learned.read(Quadrants().load(0).image), asked(learned)
    together = learned.answer(reading, prompts * 4, None)
    for prompt, answer in zip(prompts * 4, together, strict=True):
        (alone,) = learned.answer(reading, [prompt], None)
        assert alone.text == answer.text
        torch.testing.assert_close(alone.scores, answer.scores)
        torch.testing.assert_close(alone.coverage, answer.coverage)


def test_constrained_decoding_of_a_trained_model_changes_nothing(learned: Text4Seg) -> None:
    reading, prompts = learned.read(Quadrants().load(0).image), asked(learned)
    free = [answer.text for answer in learned.answer(reading, prompts, None)]
    learned.constrained = True
    try:
        assert [answer.text for answer in learned.answer(reading, prompts, None)] == free
    finally:
        learned.constrained = False


def test_a_picture_is_a_clip_of_one_frame(learned: Text4Seg) -> None:
    model, image = Model(learned), Quadrants().load(0).image
    clip = model.select_video([image, image], "the pair")
    group = model.select(image, "the pair")
    assert len(clip) == len(group)
    assert np.array_equal(clip.frame(0).any(0), group.mask) and np.array_equal(clip.frame(1).any(0), group.mask)
    assert group.candidates is None and group.text


def test_a_refiner_gets_masks_at_the_size_of_the_picture(learned: Text4Seg) -> None:
    refiner, image = Corner(), Quadrants().load(0).image
    group, plain = Model(learned, refiner=refiner).select(image, "red"), Model(learned).select(image, "red")
    expected = plain.masks.copy()
    expected[:, 16:] = expected[:, :, 16:] = False
    assert np.array_equal(group.masks, expected) and group.text == plain.text and group.refiner == "corner"
    assert len(group) and refiner.sizes == [(32, 32)]


def test_saves_and_loads(learned: Text4Seg, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "t.safetensors", learned.learned_state(), {"system": learned.name})
    place = "after_prompt" if learned.reader.image_after_prompt else "before_prompt"
    again = tiny(learned.name, start=str(tmp_path / "t.safetensors"), **PLACES[place]).eval()
    reading, other = learned.read(Quadrants().load(0).image), again.read(Quadrants().load(0).image)
    texts = [[a.text for a in s.answer(r, asked(s), None)] for s, r in ((learned, reading), (again, other))]
    assert texts[0] == texts[1]


def test_starts_from_the_other_variant_without_its_tokens(learned: Text4Seg, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "t.safetensors", learned.learned_state(), {"system": learned.name})
    (other,) = CODECS.keys() - {learned.name}
    place = "after_prompt" if learned.reader.image_after_prompt else "before_prompt"
    fresh, started = (tiny(other, start=start, **PLACES[place]) for start in (None, str(tmp_path / "t.safetensors")))
    common = len(Llava(sizes=SIZES).tokenizer)
    rows = [s.lmm.model.get_input_embeddings().weight for s in (learned, fresh, started)]
    torch.testing.assert_close(rows[2][:common], rows[0][:common], atol=1e-3, rtol=1e-3)
    assert torch.equal(rows[2][common:], rows[1][common:]) and len(rows[1]) > common
    layers = [s.lmm.language_model.state_dict()["layers.0.mlp.up_proj.weight"] for s in (learned, started)]
    torch.testing.assert_close(*layers, atol=1e-3, rtol=1e-3)


def test_image_tokens_after_the_prompt_depend_on_it_and_on_each_other() -> None:
    system = tiny("text4segpp", **PLACES["after_prompt"]).eval()
    features = torch.randn(1, system.lmm.most_image_tokens, system.lmm.vision_width)

    def states(features: Tensor, question: str, orders: list[list[int]] | None = None) -> Tensor:
        images = system._read(features, [[question]], [[]])
        answered = forced_answers(
            system.reader, images, [[question]], [["<seg>"]], -1, run=system.hidden_and_cells, orders=orders
        )
        assert answered.image_states is not None
        return answered.image_states[0].detach()

    plain, count = states(features, "red"), features.shape[1]
    assert plain.shape == (count, system.lmm.width) and not torch.allclose(plain, states(features, "blue"))
    changed = features.clone()
    changed[0, -1] += 1
    assert not torch.allclose(plain[0], states(changed, "red")[0])
    # All are at one position, so their order has no meaning.
    turned = states(features, "red", [list(range(count))[::-1]])
    torch.testing.assert_close(turned.flip(0), plain)
    assert len(states(features, "red", [[1, 3]])) == 2
    for wrong in ({"cell_weight": 1.0}, {"background_share": 0.5}):
        with pytest.raises(ValueError, match="expected image_place 'after_prompt'"):
            tiny("text4seg", **wrong)
    with pytest.raises(ValueError, match="one of 2 layers"):
        tiny("text4seg", **PLACES["after_prompt"] | {"cell_layer": 3})


def test_coverage_is_what_image_tokens_predict() -> None:
    system, texts = tiny("text4segpp", **PLACES["after_prompt"]).eval(), ["red", "the blue one left of <mask-ref>"]
    image, reference = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8), torch.ones(1, 24, 40).bool()
    reading = system.read(image)
    assert isinstance(reading, PictureReading)
    answers = system.answer(reading, [Prompt(texts[0], reference[:0]), Prompt(texts[1], reference)], None)
    references = [reference[:0], system.pooled(reading.features, reference)]
    for text, pooled, answer in zip(texts, references, answers, strict=True):
        images = system._read(reading.features[None], [[text]], [[pooled]])
        forced = forced_answers(system.reader, images, [[text]], [[""]], -1, run=system.hidden_and_cells)
        assert forced.image_states is not None and system.cell_head is not None and answer.coverage is not None
        expected = system.cell_head(forced.image_states[0]).sigmoid().reshape(system.image_grid())
        torch.testing.assert_close(answer.coverage, expected.detach(), atol=1e-4, rtol=1e-4)
    other = tiny("text4segpp").eval()
    assert other.answer(other.read(image), [Prompt("red", reference[:0])], None)[0].coverage is None
    with pytest.raises(ValueError, match="expected a cell_weight above 0"):
        tiny("text4segpp", score="coverage")


def test_a_score_may_be_the_highest_coverage_in_the_mask(learned: Text4Seg, monkeypatch: pytest.MonkeyPatch) -> None:
    if learned.cell_head is None:
        pytest.skip("these image tokens predict nothing")
    monkeypatch.setattr(learned, "score", "coverage")
    annotated = Quadrants().load(0)
    (answer,) = learned.answer(learned.read(annotated.image), asked(learned)[:1], None)
    assert answer.coverage is not None and isinstance(answer.masks, Tensor)
    half = annotated.masks[0]  # the left half of the first of four cells, as the codec's finer cells show it
    assert torch.equal(answer.masks[0], half)
    torch.testing.assert_close(answer.scores, 0.5 * answer.coverage[0, :1])


def test_gradients_are_the_same_with_recomputed_activations() -> None:
    batches, losses = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        lmm = Llava(sizes=SIZES, gradient_checkpointing=recompute)
        system = Text4Seg(lmm, CODECS["text4segpp"], label="region", side=32, longest=160, **PLACES["after_prompt"])
        preparer = system.preparer(PrepareSettings(), True)
        batches.append(preparer.collate([preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5)]))
        loss = system.loss(batches[-1])
        loss["loss"].backward()
        losses.append({**loss, "gradient": lmm.language_model.layers[0].mlp.up_proj.weight.grad})
    torch.testing.assert_close(losses[0], losses[1])


def test_instances_are_written_from_left_to_right() -> None:
    masks = Quadrants().load(0).masks[[3, 1, 2, 0]]
    boxes = [
        re.findall(r"\[\[(.*?)\]\]", tiny("text4segpp", instance_order=o).written(Query("x", (), ()), masks, None)[1])
        for o in ("left_to_right", "given")
    ]
    assert boxes == [["0 0 0 1", "0 2 0 3", "2 0 2 1", "2 2 2 3"], ["2 2 2 3", "2 0 2 1", "0 2 0 3", "0 0 0 1"]]


def test_positions_of_cells_begin_at_zero_and_are_learned(tmp_path: Path) -> None:
    plain = tiny("text4segpp", image_place="after_prompt").eval()
    write_checkpoint(tmp_path / "t.safetensors", plain.learned_state(), {"system": plain.name})
    start, image = str(tmp_path / "t.safetensors"), Quadrants().load(0).image
    system = tiny("text4segpp", image_place="after_prompt", cell_positions=True, start=start).eval()
    readings = [s.read(image) for s in (plain, system)]
    images = [r.images.tokens.images for r in readings if isinstance(r, PictureReading)]
    torch.testing.assert_close(images[0], images[1], atol=2e-3, rtol=2e-3)
    assert system.reader.row_positions is not None and system.reader.column_positions is not None
    with torch.no_grad():
        system.reader.row_positions[1] += 1
        system.reader.column_positions[0] += 2
    changed = system.read(image)
    assert isinstance(changed, PictureReading)
    added = (changed.images.tokens.images - images[1])[0]  # cells by row, then by column
    torch.testing.assert_close(added, torch.tensor([2.0, 0, 3, 1])[:, None].expand(-1, 32))
    preparer = system.train().preparer(PrepareSettings(), True)
    system.loss(preparer.collate([preparer.prepare(Quadrants(), 0, np.random.default_rng(0), 5)]))["loss"].backward()
    assert system.reader.column_positions.grad is not None and system.reader.column_positions.grad.abs().sum() > 0


@torch.no_grad()
def test_the_score_is_that_of_the_foreground_or_of_the_opening(
    learned: Text4Seg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities of the tokens of an answer, which the language model gives when it reads the answer."""
    reading, prompts = learned.read(Quadrants().load(0).image), asked(learned)[2:3]
    assert isinstance(reading, PictureReading)
    (answer,) = learned.answer(reading, prompts, None)
    text = answer.text or ""
    ids = learned.texts.encode(text)
    seen: list[Tensor] = []

    def run(*inputs: Any) -> Tensor:
        seen.append((learned.hidden_and_cells if learned.cell_head else learned.lmm.hidden)(*inputs))
        return seen[-1]

    images, texts = learned._read(reading.features[None], [["the pair"]], [[]]), [["the pair"]]
    places, ahead = learned._places_written(), learned._look_ahead()
    forced_answers(learned.reader, images, texts, [[""]], -1, encode=lambda _: ids, run=run, cells=places, ahead=ahead)
    states = seen[-1][0, -len(ids) - 2 : -2, : learned.lmm.width]
    sure = learned.lmm.token_logits(states).softmax(-1)[range(len(ids)), ids]
    words = [learned.texts.texts[number] for number in ids]
    fills: list[list[int]] = []
    if learned.name == "text4segpp":
        begins = [number for number, word in enumerate(words) if word == "<ref>"]
        bodies = zip(begins, [*begins[1:], len(words)], strict=True)
        begins = [number - (words[number - 1] == "\n") for number in begins]  # of the separator before it
        fills = [[n for n in range(*body) if words[n].startswith("fg")] for body in bodies]
    else:
        first = "".join(words).index("target")
        begins = [next(n for n in range(len(words)) if len("".join(words[: n + 1])) > first)]
    monkeypatch.setattr(learned, "score", "opening")
    (opened,) = learned.answer(reading, prompts, None)
    torch.testing.assert_close(opened.scores.sort().values, sure[begins].sort().values, atol=1e-4, rtol=1e-4)
    if learned.name == "text4segpp":
        expected = torch.stack([sure[fill].mean() for fill in fills]).sort().values
        torch.testing.assert_close(answer.scores.sort().values, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_tokens_of_an_answer_get_the_position_of_the_next_cell_and_what_follows_it() -> None:
    system = tiny("text4segpp", **PLACES["after_prompt"]).eval()
    reader, places, look = system.reader, system._places_written(), system._look_ahead()
    assert reader.row_positions is not None and reader.column_positions is not None and reader.look_ahead is not None
    assert places is not None and look is not None
    for table in (reader.row_positions, reader.column_positions, reader.look_ahead.weight):
        table.normal_(generator=torch.Generator().manual_seed(0))
    features = torch.randn(1, system.lmm.most_image_tokens, system.lmm.vision_width)
    grammar = GrammarProcessor([system.codec.grammar(None)], system.texts)
    generator = torch.Generator().manual_seed(0)

    def process(ids: list[list[int]], logits: Tensor) -> Tensor:
        wished = torch.randn(logits.shape, generator=generator)
        wished[:, system.texts.end] = -9 if len(ids[0]) < 20 else 9
        return grammar(ids, wished)

    images = system._read(features, [[]], [[]])
    run = system.hidden_and_cells
    written = generate_texts(reader, images, ["red"], 160, process=process, cells=places, run=run, ahead=look)
    ids = written.ids[0]
    assert any(places(ids, len(ids))) and places(ids, len(ids))[0] == 0
    # The cells are numbered from 1, three places for each of two rows: two cells and the end of the row.
    assert max(places(ids, len(ids))) <= 6 and places(ids, 3) == places(ids, len(ids))[-3:]

    def forced(cells: Callable[[list[int], int], list[int]] | None, ahead: LookAhead | None) -> Tensor:
        seen: list[Tensor] = []

        def kept(*inputs: Any) -> Tensor:
            seen.append(run(*inputs))
            return seen[-1]

        read = system._read(features, [["red"]], [[]])
        forced_answers(reader, read, [["red"]], [[""]], -1, encode=lambda _: ids, run=kept, cells=cells, ahead=ahead)
        return seen[-1][0, -len(ids) - 2 : -2, : system.lmm.width]

    # Reading an answer gives the states with which it was written.
    torch.testing.assert_close(forced(places, look), written.states[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(forced(None, None), written.states[0], atol=1e-2)

    def nothing(states: list[Tensor], orders: list[list[int]]) -> Tensor:
        return torch.zeros_like(look(states, orders))

    assert not torch.allclose(forced(places, nothing), written.states[0], atol=1e-2)


def test_what_follows_a_cell_is_the_rest_of_its_row() -> None:
    system = tiny("text4seg", **PLACES["after_prompt"])
    assert system.cell_head is not None
    look, states = system._look_ahead(), torch.randn(2, 4, system.lmm.width)
    assert look is not None
    first, second = system.cell_head(states).float().sigmoid().detach().unbind()
    seen = look([states[0], states[1][[0, 3]]], [[0, 1, 2, 3], [0, 3]]).detach()
    a, b, c, d = first.tolist()  # two rows of two cells; the last row of three places is behind the cells
    none = [0.0, 0.0]
    torch.testing.assert_close(seen[0], torch.tensor([none, [a, b], [b, 0], none, [c, d], [d, 0], none]))
    a, d = second[[0, 3]].tolist()  # a training step that leaves out the other two
    torch.testing.assert_close(seen[1], torch.tensor([none, [a, 0], none, none, [0, d], [d, 0], none]))
    with pytest.raises(ValueError, match="expected cell_positions and a cell_weight above 0"):
        tiny("text4seg", look_ahead=2)
    with pytest.raises(ValueError, match="expected both or neither"):
        system.reader.places(torch.tensor([1]))


def test_a_training_step_may_leave_out_background(monkeypatch: pytest.MonkeyPatch) -> None:
    annotated = Quadrants().load(0)
    annotated.masks[[1, 3]] = False
    monkeypatch.setattr(Quadrants, "load", lambda *_: annotated)
    system = tiny("text4segpp", background_share=0.0, **PLACES["after_prompt"])
    preparer, half = system.preparer(PrepareSettings(), True), Quadrants()
    item = preparer.prepare(half, 0, np.random.default_rng(0), 5)
    # The quadrants are the cells of the four image tokens; two have a mask on their left half.
    assert item.kept is not None and item.kept.tolist() == [0, 2] and item.cells is not None
    assert item.cells.tolist()[:3] == [[0.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0.5, 0]]
    assert set(system.loss(preparer.collate([item]))) == {"loss", "text", "accuracy", "cells", "cell_iou"}
    assert system.preparer(PrepareSettings(), False).prepare(half, 0, np.random.default_rng(0), 5).kept is None


@pytest.mark.parametrize("variant", CODECS)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_model_prefers_the_grammar_gives_masks(variant: str, seed: int) -> None:
    system = tiny(variant, extra_tokens=["[[", "]]", "\n"])
    texts, codec = system.texts, system.codec
    generator = torch.Generator().manual_seed(seed)
    labels = system._labels("x", None)
    process = GrammarProcessor([codec.grammar(labels)] * 2, texts)
    ids: list[list[int]] = [[], []]
    ended = [False, False]
    for _ in range(400):
        logits = process(ids, 3 * torch.randn(2, len(texts.texts), generator=generator))
        for row, token in enumerate(logits.argmax(-1).tolist()):
            if token == texts.end:
                ended[row] = True
            if not ended[row]:
                ids[row].append(token)
        if all(ended):
            break
    for row, done in zip(ids, ended, strict=True):
        decoded = codec.decode(texts.decode(row), (8, 8), labels)
        if done:
            assert decoded.failure is None and decoded.repairs == 0, texts.decode(row)
    assert any(ended)


def test_texts_are_tokenised_exactly() -> None:
    texts = TokenTexts(tiny("text4segpp").lmm)
    answer = CODECS["text4segpp"].encode(Quadrants().load(0).masks)
    assert texts.decode(texts.encode(answer)) == answer
    assert texts.encode("ß") == texts.lmm.token_ids("ß")  # a letter of several tokens
    assert texts.end not in texts.encode(answer)


def test_where_the_foreground_is_written() -> None:
    codec = CODECS["text4segpp"]
    masks = Quadrants().load(0).masks[[0, 3]]
    text = codec.encode(masks)
    spans = codec.foreground(text, codec.decode(text, (32, 32)).labels)
    assert len(spans) == 2 and all(text[slice(*span)].startswith("fg") for runs in spans for span in runs)
    assert sum(map(len, spans)) == text.count("fg")
    rows = DescriptorCodec(grid=4)
    text = rows.encode(masks, ["cat", "dog"])
    (cat, dog) = rows.foreground(text, ["cat", "dog"])
    assert [text[slice(*span)].strip() for span in cat] == ["cat *1"] * 2
    assert [text[slice(*span)].strip() for span in dog] == ["dog *1"] * 2
    assert codec.foreground("none", ["a"]) == [[(0, 4)]] and rows.foreground("none", ["a"]) == [[(0, 4)]]


def test_a_reference_is_pooled_under_its_mask() -> None:
    system = tiny("text4segpp")
    features = torch.arange(4.0)[:, None].expand(4, system.lmm.vision_width)
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, :8, :12], masks[1, :, 12:] = True, True
    assert system.pooled(features, masks)[:, 0].tolist() == [0.0, 2.0]  # tokens 1 and 3 under the second


def test_a_clip_tells_the_frame_that_could_not_be_decoded(learned: Text4Seg, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Quadrants().load(0).image
    assert Model(learned).select_video([image], "red").failure is None
    monkeypatch.setattr(learned.texts, "decode", lambda ids: "<seg></seg><ref>")
    failure = Model(learned).select_video([image, image], "red").failure
    assert failure is not None and failure.startswith("frame 0: ")


@pytest.mark.parametrize("special_tags", [False, True])
def test_with_lora_embeddings_train_only_for_new_tokens(special_tags: bool) -> None:
    """As published: Text4Seg has no new tokens, and trains adapters and projector alone."""
    lora = LoraSettings(r=2, alpha=4)
    system = Text4Seg(Llava(sizes=SIZES, lora=lora), DescriptorCodec(grid=4, special_tags=special_tags), "text4seg", 32)
    trained = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
    assert any("embed_tokens" in name for name in trained) == special_tags
    assert any("lora_A" in name for name in trained) and any("multi_modal_projector" in name for name in trained)
    whole = tiny("text4seg").lmm.model
    assert all(parameter.requires_grad for parameter in whole.model.language_model.parameters())


def test_another_set_of_encoders_is_refused(tmp_path: Path) -> None:
    ras = tiny_ras()
    write_checkpoint(tmp_path / "ras.safetensors", ras.learned_state(), {"system": "ras"})
    with pytest.raises(ValueError, match="the encoders must be the same"):
        tiny("text4segpp", start=str(tmp_path / "ras.safetensors"))


def test_starts_from_ras_with_cells_as_masks(tmp_path: Path) -> None:
    ras = tiny_ras()
    ras.reader.mask_tokenizer.fit_statistics(torch.randn(50, ras.channels) * 3 + 1)
    write_checkpoint(tmp_path / "ras.safetensors", ras.learned_state(), {"system": "ras"})
    tower = GridTower(EncoderEnsemble([SinusoidEncoder(grid=8, frequencies=3)]), grid=4)
    assert isinstance(tower, VisionTower)
    start = str(tmp_path / "ras.safetensors")
    system = Text4Seg(Llava(sizes=SIZES, tower=tower), CODECS["text4segpp"], side=32, label="region", start=start)
    features = system.image_features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert features.shape == (1, 16, system.lmm.vision_width) == (1, 16, tower.channels)
    as_masks = system.reader.mask_tokenizer(features[0])
    torch.testing.assert_close(system.lmm.project_image(features)[0], as_masks, atol=1e-4, rtol=1e-4)
    kept = ras.reader.mask_tokenizer.mean[: tower.channels]
    torch.testing.assert_close(system.reader.mask_tokenizer.mean, kept, atol=1e-2, rtol=1e-2)
    words = ras.lmm.token_ids("red mug")
    torch.testing.assert_close(
        system.lmm.embed(torch.tensor(words)), ras.lmm.embed(torch.tensor(words)), atol=1e-3, rtol=1e-3
    )
    assert not any("vision_tower" in name for name in system.learned_state())
    reading = system.eval().read(np.zeros((32, 48, 3), np.uint8))
    assert isinstance(reading, PictureReading) and reading.size == (32, 48)
