"""LLM-Seg at a tiny size: answers, groups, losses, what trains, and what a checkpoint holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskselect.backends import checkpoints
from maskselect.heads.strategies import STRATEGIES, Strategy
from maskselect.lmm.llava import Llava
from maskselect.lmm.lora import LoraSettings, merge_adapters, merged_state
from maskselect.predictor import Model
from maskselect.structures.sample import Overlaps
from maskselect.systems import llmseg, questions
from maskselect.systems.answering import LONGEST_ANSWER, forced_answers
from maskselect.systems.llmseg import LLMSeg
from maskselect.systems.scoring import read_images
from tests.systems.tiny import SIZES, TEXTS, Nothing, tiny_batch, tiny_llmseg

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def says(system: LLMSeg, text: str) -> None:
    """Makes the model say `text` to everything, by its output layer: each token of it wins where its turn is."""
    ids = [*system.lmm.token_ids(text), system.lmm.tokenizer.eos_token_id]
    turn = iter(ids * 100)

    def logits(hidden: Tensor) -> Tensor:
        out = torch.zeros(*hidden.shape[:-1], len(system.lmm.tokenizer))
        out[..., next(turn)] = 1
        return out

    system.lmm.token_logits = logits  # type: ignore[method-assign]


def test_training_lowers_every_loss() -> None:
    system = tiny_llmseg(references=True)
    system.train()
    batch = tiny_batch(system)
    optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 3e-3)
    history = []
    for step in range(40):
        torch.manual_seed(step % 4)
        losses = system.loss(batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append({k: float(v.detach()) for k, v in losses.items()})
    for name in ("text", "iou", "iop"):
        assert history[-4][name] < 0.7 * history[0][name], name  # of the same draws


def test_total_is_the_weighted_sum_of_equation_4() -> None:
    system = tiny_llmseg(iou_weight=2.0, iop_weight=30.0, text_weight=0.5).eval()
    losses = system.loss(tiny_batch(system))
    expected = 0.5 * losses["text"] + 2 * losses["iou"] + 30 * losses["iop"]
    torch.testing.assert_close(losses["loss"], expected)


def test_the_state_is_the_one_that_predicts_seg() -> None:
    system = tiny_llmseg().eval()
    batch = replace_candidates(tiny_batch(system, images=1))
    seen = []
    original = system.lmm.hidden

    def noted(*given: Any) -> Tensor:
        seen.append(original(*given))
        return seen[-1]

    system.lmm.hidden = noted  # type: ignore[method-assign]
    with torch.no_grad():
        images = read_images(system.reader, batch)
        found = forced_answers(system.reader, images, [["what is it?"]], [["Sure, [SEG]."]], system.seg_id)
    question = len(system.reader.prompt("what is it?", len(images.prefixes[0])))
    place = question + system.lmm.token_ids("Sure, [SEG].").index(system.seg_id) - 1
    torch.testing.assert_close(found.states[0], seen[-1][0, place])
    assert found.has_seg.tolist() == [True]


def replace_candidates(batch: Any) -> Any:
    none = batch.candidate_features[:, :0]
    return replace(batch, candidate_features=none, candidate_valid=none[..., 0].bool(), prompts=[["what is it?"]],
                   reference_features=[[none[0]]])  # fmt: skip


def test_generated_and_given_answers_read_the_same_state() -> None:
    """Where the model says by itself what teacher forcing puts into its mouth, both find the same `[SEG]`."""
    system = tiny_llmseg().eval()
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    given = tiny_forced(system).answers(read, TEXTS[:1], [torch.zeros(0, system.channels)])
    says(system, "[SEG].")
    generated = system.answers(read, TEXTS[:1], [torch.zeros(0, system.channels)])
    assert generated.texts == ["[SEG]"]
    torch.testing.assert_close(generated.states, given.states, atol=1e-5, rtol=1e-4)


def tiny_forced(system: LLMSeg) -> LLMSeg:
    forced = tiny_llmseg(answering="teacher_forced").eval()
    forced.load_state_dict(system.state_dict())
    return forced


def test_several_prompts_are_answered_as_each_alone() -> None:
    system = tiny_llmseg().eval()
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    references = [torch.randn(text.count("<mask-ref>"), system.channels) for text in TEXTS]
    for forced in (system, tiny_forced(system)):
        scores, chosen = forced.score_candidates(read, TEXTS, references, 0.5)
        for number, text in enumerate(TEXTS):
            alone = forced.score_candidates(read, [text], references[number : number + 1], 0.5)
            torch.testing.assert_close(scores[number : number + 1], alone[0], atol=1e-5, rtol=1e-4)
            assert torch.equal(chosen[number : number + 1], alone[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_seg_in_the_answer_the_group_is_empty(strategy: Strategy) -> None:
    system = tiny_llmseg(strategy=strategy).eval()
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    says(system, questions.NO_TARGET_ANSWERS[0])
    scores, chosen = system.score_candidates(read, ["the red mugs"], [torch.zeros(0, system.channels)], 0.0)
    assert not chosen.any()
    assert float(scores.abs().max()) == 0


def test_where_nothing_is_meant_iop_is_learned_to_be_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong [SEG] then still gives an empty group; the words of such an answer are not learned."""
    losses = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(llmseg, "DOUBTED", share)
        system = tiny_llmseg().train()
        batch = tiny_batch(system)
        nothing = Overlaps(*(torch.zeros_like(t) for t in vars(batch.overlaps).values()))
        torch.manual_seed(0)
        losses[share] = system.loss(replace(batch, overlaps=nothing))
    assert set(losses[0.0]) == {"loss", "text"} and losses[0.0]["text"].item() > 0
    assert set(losses[1.0]) == {"loss", "text", "iop"} and losses[1.0]["text"].item() == 0
    losses[1.0]["loss"].backward()
    assert system.iop_head is not None and system.iop_head.layers[-1].bias.grad is not None
    assert float(system.iop_head.layers[-1].bias.grad) > 0  # a step against it lowers every IoP


def test_teacher_forcing_always_finds_seg() -> None:
    system = tiny_llmseg(answering="teacher_forced").eval()
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    answers = system.answers(read, ["the red mugs", "stars"], [torch.zeros(0, system.channels)] * 2)
    assert answers.has_seg.all()


def test_an_endless_answer_is_cut() -> None:
    system = tiny_llmseg().eval()
    says(system, "red " * 40)
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    answers = system.answers(read, ["stars"], [torch.zeros(0, system.channels)])
    assert not answers.has_seg.any()
    assert len(system.lmm.token_ids(answers.texts[0])) <= LONGEST_ANSWER + 1


def test_references_change_the_answer() -> None:
    system = tiny_forced(tiny_llmseg())
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    first, second = (
        system.score_candidates(read, ["left of <mask-ref>"], [torch.randn(1, system.channels)], 0.5)[0]
        for _ in range(2)
    )
    assert not torch.allclose(first, second)


def test_without_references_a_prompt_that_points_is_told() -> None:
    system = tiny_llmseg(references=False).eval()
    assert not any("mask_tokenizer" in name for name in system.learned_state())
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    with pytest.raises(ValueError, match="may not point at masks"):
        system.score_candidates(read, ["left of <mask-ref>"], [torch.randn(1, system.channels)], 0.5)


def test_parts_can_be_left_out() -> None:
    for parts, strategy in (
        ({"fusion": False, "iop_head": False}, "top_iou"),
        ({"iop_head": False}, "top_iou"),
        ({"iou_head": False}, "iop"),
    ):
        system = tiny_llmseg(strategy=strategy, **parts)
        losses = system.loss(tiny_batch(system))
        assert ("iou" in losses, "iop" in losses) == (parts.get("iou_head", True), parts.get("iop_head", True))
        losses["loss"].backward()
    with pytest.raises(ValueError, match="needs a head that is switched off"):
        tiny_llmseg(iop_head=False)
    with pytest.raises(ValueError, match="needs iou_head or iop_head"):
        tiny_llmseg(iop_head=False, iou_head=False)


def test_only_what_the_paper_trains_has_gradients() -> None:
    lmm = Llava(sizes=SIZES, lora=LoraSettings(r=2, alpha=4, targets=["q_proj", "v_proj"]))
    system = tiny_llmseg(lmm=lmm)
    trained = {name for name, p in system.named_parameters() if p.requires_grad}
    roots = {name.split(".")[0] for name in trained if not name.startswith("reader.")}
    assert roots == {"text_projection", "mask_conv", "fusion", "iou_head", "iop_head"}
    inside = {name for name in trained if name.startswith("reader.lmm")}
    assert all("lora_" in name or "embed_tokens" in name or "lm_head" in name for name in inside)
    assert any("lora_" in name for name in inside)
    alone = tiny_llmseg(lmm=Llava(sizes=SIZES, lora=LoraSettings(r=2, alpha=4)), train_embeddings=False)
    names = [n for n, p in alone.named_parameters() if p.requires_grad and n.startswith("reader.lmm")]
    assert all("lora_" in name for name in names)


def test_a_checkpoint_holds_what_trains_and_gives_it_back(tmp_path: Path) -> None:
    lora = LoraSettings(r=2, alpha=4, targets=["q_proj"])
    first = tiny_llmseg(lmm=Llava(sizes=SIZES, lora=lora))
    for parameter in first.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "llmseg.safetensors"
    checkpoints.write_checkpoint(path, first.learned_state(), {"system": "llmseg"})
    torch.manual_seed(5)
    second = tiny_llmseg(lmm=Llava(sizes=SIZES, lora=lora), start=str(path))
    for name, tensor in first.learned_state().items():
        torch.testing.assert_close(second.learned_state()[name], tensor, atol=2e-3, rtol=2e-3)
    with pytest.raises(ValueError, match="has no `lora`"):
        tiny_llmseg(start=str(path))


def test_a_frozen_seg_is_the_same_whenever_the_model_is_built(tmp_path: Path) -> None:
    """As the paper has it, embeddings are not trained: no checkpoint holds the row of a token that was added."""
    base = tmp_path / "base.safetensors"
    checkpoints.write_checkpoint(base, merged_state(Llava(sizes=SIZES).model), {"system": "llava"}, stored=None)

    def made(seed: int, start: str | None = None) -> LLMSeg:
        torch.manual_seed(seed)
        lmm = Llava(base=str(base), sizes=SIZES, lora=LoraSettings(r=2, alpha=4, targets=["q_proj"]))
        return tiny_llmseg(lmm=lmm, train_embeddings=False, start=start).eval()

    first, path = made(0), tmp_path / "llmseg.safetensors"
    checkpoints.write_checkpoint(path, first.learned_state(), {"system": "llmseg"}, stored=None)
    second = made(1, str(path))
    rows = [system.lmm.embed(torch.tensor([system.seg_id])) for system in (first, second)]
    assert torch.equal(*rows) and float(rows[0].std()) > 0
    assert not any("embed_tokens" in name for name in first.learned_state())
    for system in (first, second):
        says(system, questions.SEG)
    features = torch.randn(4, first.channels)
    asked = [
        (system.read_candidates(IMAGE, features), ["the red mugs"], [features[:0]], 0.5) for system in (first, second)
    ]
    torch.testing.assert_close(first.score_candidates(*asked[0])[0], second.score_candidates(*asked[1])[0])


def test_adapters_are_merged_for_inference_and_nothing_changes() -> None:
    lmm = Llava(sizes=SIZES, lora=LoraSettings(r=2, alpha=4, targets=["q_proj", "down_proj"]))
    system = tiny_llmseg(lmm=lmm, answering="teacher_forced").eval()
    for name, parameter in system.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) / 4
    features, none = torch.randn(4, system.channels), [torch.zeros(0, system.channels)]
    wanted = system.score_candidates(system.read_candidates(IMAGE, features), ["the red mugs"], none, 0.5)[0]
    learned = {name: tensor.clone() for name, tensor in system.learned_state().items()}
    before = system.lmm.language_model.layers[0].self_attn.q_proj.base_layer.weight.clone()
    merge_adapters(system)
    assert not torch.equal(system.lmm.language_model.layers[0].self_attn.q_proj.base_layer.weight, before)
    again = system.score_candidates(system.read_candidates(IMAGE, features), ["the red mugs"], none, 0.5)[0]
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-5)
    kept = {name: tensor for name, tensor in system.learned_state().items() if ".base_layer." not in name}
    assert len(kept) > 20 and all(torch.equal(tensor, learned[name]) for name, tensor in kept.items())


def test_no_candidates_can_be_read() -> None:
    system = tiny_llmseg().eval()
    none = torch.zeros(0, system.channels)
    scores, chosen = system.score_candidates(
        system.read_candidates(IMAGE, none), ["stars", "the red mugs"], [none, none], 0.5
    )
    assert scores.shape == chosen.shape == (2, 0)


def test_the_answers_own_token_is_refused_in_a_prompt() -> None:
    with pytest.raises(ValueError, match=r"prompt 'the \[SEG\] leaves' holds \[SEG\], which only an answer may"):
        Model(tiny_llmseg()).select(IMAGE, "the [SEG] leaves")


def test_the_seg_token_is_one_token() -> None:
    system = tiny_llmseg()
    ids = system.lmm.token_ids("Sure, it is [SEG].")
    assert ids.count(system.seg_id) == 1
    assert system.lmm.embed(torch.tensor(ids)).shape == (len(ids), 32)
    assert system.lmm.add_token("[SEG]") == system.seg_id


def test_select_through_the_public_path() -> None:
    model = Model(tiny_llmseg(answering="teacher_forced"), threshold=0.0)
    reference = np.zeros((40, 60), bool)
    reference[:20] = True
    groups = model.select_many(IMAGE, ["stars", "left of <mask-ref>"], [[], [reference]])
    assert [len(group.masks) for group in groups] == [4, 4]  # no threshold, and no candidate is dropped for likeness
    assert all((np.diff(group.scores) <= 0).all() for group in groups)
    empty = Model(tiny_llmseg(Nothing())).select(IMAGE, "stars")
    assert empty.no_target
    assert model.select_many(IMAGE, []) == []


def test_top_iou_gives_exactly_one() -> None:
    model = Model(tiny_llmseg(strategy="top_iou", answering="teacher_forced"), threshold=0.5)
    assert len(model.select(IMAGE, "the red mugs").masks) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("the red mugs", False),
        ("Star", False),
        ("mugs left of <mask-ref>", False),
        ("What would you drink tea from?", True),
        ("find the key that fits", True),
        ("I am thirsty.", True),
        ("can on left", False),
    ],
)
def test_phrases_and_sentences_are_asked_differently(text: str, sentence: bool) -> None:
    assert questions.is_sentence(text) == sentence
    asked = questions.ask(text)
    assert asked.endswith("Please output segmentation mask.")
    assert asked.startswith(text if sentence else f"What is {text.lower()} in this image?")


def test_plain_phrasing_adds_nothing() -> None:
    assert questions.ask("the  red mugs", None, "plain") == "the red mugs"
    assert [questions.answer(some, None, "plain") for some in (True, False)] == ["[SEG]", "none"]
    system = tiny_llmseg(phrasing="plain").eval()
    says(system, "[SEG]")
    read = system.read_candidates(IMAGE, torch.randn(4, system.channels))
    assert system.answers(read, ["stars"], [torch.zeros(0, system.channels)]).texts == ["[SEG]"]


def test_questions_and_answers_are_drawn_from_all_published_ones() -> None:
    rng = np.random.default_rng(0)
    assert {questions.ask("a cup", rng) for _ in range(100)} == {q.format("a cup") for q in questions.PHRASE_QUESTIONS}
    assert {questions.answer(True, rng) for _ in range(200)} == set(questions.ANSWERS)
    assert all("[SEG]" not in text for text in questions.NO_TARGET_ANSWERS)
