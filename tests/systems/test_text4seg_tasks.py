"""The tasks of Text4Seg and Text4Seg++: questions, listed classes, words, and answers that are repaired or cut."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.cli import loading
from maskselect.codecs.boxwise import BoxwiseCodec
from maskselect.data.catalog import find_entry
from maskselect.evaluation.run import evaluate
from maskselect.evaluation.samples import build_report, score_samples
from maskselect.lmm.llava import Llava
from maskselect.predictor import Model
from maskselect.reports.page import draw_page
from maskselect.reports.table import print_report
from maskselect.structures.generation import Generated
from maskselect.structures.groups import PrepareSettings, Query
from maskselect.structures.sample import Prompt, Sample
from maskselect.structures.scored import Scored
from maskselect.systems import text4seg
from maskselect.systems.text4seg import Text4Seg
from tests.cli.asking import predict
from tests.data.test_reasoning_sets import muse_files, reasonseg_files
from tests.systems.test_text4seg import CODECS, Quadrants
from tests.systems.tiny import SIZES


def tiny(variant: str, codec: Any = None, **arguments: Any) -> Text4Seg:
    torch.manual_seed(0)
    settings = {"label": "region" if variant == "text4segpp" else "target", "side": 32, "longest": 160} | arguments
    return Text4Seg(Llava(sizes=SIZES), codec or CODECS[variant], variant, **settings)  # type: ignore[arg-type]


def says(system: Text4Seg, monkeypatch: pytest.MonkeyPatch, texts: list[str], cut: tuple[int, ...] = ()) -> list[str]:
    """Let a system write given texts, one after another; those of `cut` are as long as an answer may be.

    Returns:
        The questions, which are added when they are asked.
    """
    left, questions = list(enumerate(texts)), list[str]()

    def generate(reader: object, images: object, some: list[str], longest: int, **more: object) -> Generated:
        questions.extend(some)
        answers = [left.pop(0) for _ in some]
        ids = [system.texts.encode(text) for _, text in answers]
        length = max(map(len, ids)) + 1
        monkeypatch.setattr(system, "longest", length)
        blank = system.lmm.tokenizer.pad_token_id
        ids = [row + [blank] * (length - len(row)) * (n in cut) for row, (n, _) in zip(ids, answers, strict=True)]
        return Generated(ids, [torch.zeros(len(row), system.lmm.width) for row in ids])

    monkeypatch.setattr(text4seg, "generate_texts", generate)
    return questions


def wide(variant: str, **arguments: Any) -> Text4Seg:
    return tiny(variant, phrasing="sentences", label="prompt", **arguments).eval()


@pytest.mark.parametrize("variant", CODECS)
def test_the_form_of_a_prompt_decides_how_it_is_asked(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, image = wide(variant), Quadrants().load(0).image
    prompts = ["red", "which one is red?", "others|red|blue", '"Describe it."', '"exit" or "in"']
    questions = says(system, monkeypatch, ["-"] * 5)
    Model(system).select_many(image, prompts)
    expected = [
        "Segment only red in this image.",
        "which one is red? Answer with masks.",
        "Segment the image into these classes: others|red|blue.",
        "Describe it.",
        'Segment only "exit" or "in" in this image.',
    ]
    assert questions == expected
    system = tiny(variant).eval()
    plain = says(system, monkeypatch, ["-"] * 5)
    Model(system).select_many(image, prompts)
    assert plain == [*prompts[:3], "Describe it.", prompts[4]]


def test_labels_of_questions_are_numbered_regions() -> None:
    masks, rng = Quadrants().load(0).masks[:2], None
    plus, first = wide("text4segpp"), wide("text4seg")
    _, answer = plus.written(Query("what holds tea?", (), (0, 1)), masks, rng)
    assert "<ref>roi0</ref>" in answer and "<ref>roi1</ref>" in answer
    _, answer = plus.written(Query("the mugs", (), (0, 1)), masks, rng)
    assert answer.count("<ref>the mugs</ref>") == 2
    _, answer = first.written(Query("what holds tea?", (), (0, 1)), masks, rng)
    assert "what holds tea? *" in answer  # image-wise descriptors know no regions
    question, answer = plus.written(Query("others|cat|dog", (), (0, 1), labels=("dog", "cat")), masks, rng)
    assert question.endswith("others|cat|dog.") and "<ref>dog</ref>" in answer and "<ref>cat</ref>" in answer
    assert plus.written(Query('"What is it?"', (), (), answer="A cat."), masks[:0], rng) == ("What is it?", "A cat.")
    with pytest.raises(ValueError, match=r"'others\|cat' is of the group 'condition'; expected the class of each"):
        plus.written(Query("others|cat", (), (0,)), masks[:1], rng)
    with pytest.raises(ValueError, match="expected the words of the answer"):
        plus.written(Query('"What is it?"', (), ()), masks[:0], rng)


@pytest.mark.parametrize("variant", CODECS)
def test_masks_of_listed_classes_have_labels(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, masks = wide(variant), Quadrants().load(0).masks
    text = system.codec.encode(masks[:3], ["dog", "traffic light", "dog"])
    says(system, monkeypatch, [f"Here:\n{text}", text.replace("dog", "wolf"), text])
    image = np.zeros((32, 32, 3), np.uint8)
    good, wrong, none = Model(system).select_many(image, ["traffic light|dog"] * 2 + ["the dog"], threshold=0.0)
    assert good.labels is not None and wrong.labels == () and none.labels is None
    united = {name: np.zeros((32, 32), bool) for name in good.labels}
    for name, mask in zip(good.labels, good, strict=True):
        united[name] |= mask
    assert np.array_equal(united["dog"], (masks[0] | masks[2]).numpy())
    assert np.array_equal(united["traffic light"], masks[1].numpy())
    assert wrong.failure is not None and "wolf" in wrong.failure


@pytest.mark.parametrize("variant", CODECS)
def test_a_prompt_in_quotation_marks_is_answered_with_words(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, image = wide(variant), np.zeros((32, 32, 3), np.uint8)
    says(system, monkeypatch, ["Two mugs.", "Two mugs."])
    words, masks = Model(system).select_many(image, ['"What is there?"', "the mugs"])
    assert words.text == "Two mugs." and words.no_target and words.failure is None
    assert (masks.failure is None) == (variant == "text4segpp")  # box-wise, a text without a group has no target
    text = system.codec.encode(Quadrants().load(0).masks[:1], ["it"])
    says(system, monkeypatch, [text])
    assert len(Model(system).select(image, '"Segment it."', threshold=0.0)) == 1  # with any label


def test_words_are_not_constrained(monkeypatch: pytest.MonkeyPatch) -> None:
    system = tiny("text4seg", constrained=True)
    logits = torch.zeros(2, len(system.texts.texts))
    allowed = system._processor(['"What is it?"', "red"])([[], []], logits).isfinite().sum(1)
    assert allowed[0] == len(system.texts.texts) and 0 < allowed[1] < 5


@pytest.mark.parametrize("variant", CODECS)
def test_repaired_and_cut_answers_are_told(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, image = wide(variant), Quadrants().load(0).image
    model, text = Model(system, threshold=0.0), system.codec.encode(Quadrants().load(0).masks[:1], ["red"])
    torn = text.replace("</seg>", "")
    says(system, monkeypatch, [text, torn, torn], cut=(1,))
    good, cut, repaired = model.select_many(image, ["red"] * 3)
    assert (good.repairs, good.cut) == (0, False) and "repairs" not in good.to_json() and "cut" not in good.to_json()
    assert cut.cut and cut.repairs > 0 and cut.failure is None and cut.to_json()["cut"] is True
    assert not repaired.cut and repaired.to_json()["repairs"] == repaired.repairs == cut.repairs
    says(system, monkeypatch, [text, torn, "<seg><ref>"])
    clip = model.select_video([image] * 3, "red")
    assert clip.repairs >= cut.repairs and clip.failure is not None and clip.failure.startswith("frame 2: ")


def test_reports_have_the_shares_of_texts(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    system, image = wide("text4segpp"), Quadrants().load(0).image
    text = system.codec.encode(Quadrants().load(0).masks[:1], ["red"])
    says(system, monkeypatch, [text, text.replace("red", "blue"), text, text.replace("red", "yes"), "-"], cut=(0, 3))
    rows = list(score_samples(Model(system, threshold=0.0), samples(image)))
    rows = [Scored.from_json(json.loads(json.dumps(row.as_json()))) for row in rows]
    report = build_report(rows, "own", "val", "tiny", with_gt=False, protocol="lisa")
    # "the pair" and "like <mask-ref>" have other labels than the texts
    assert (report["undecoded"], report["repaired"], report["cut"]) == (40.0, 0.0, 40.0)
    print_report(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "of the answers 40.0 % could not be decoded, 40.0 % end at the maximum length" in shown
    page = draw_page(report, rows, {})
    assert "40.0 % of the answers end at the maximum length" in page and "were repaired" not in page
    hits = report["metrics"]["overall"]["Acc@0.5"]
    assert hits == 25.0 and "<th>Acc@0.5</th>" in page and "Acc@" in shown  # "red" of four with targets


def samples(image: np.ndarray) -> list[Sample]:
    pool = Quadrants().load(0).masks
    asks = [(q, Prompt(q.text, pool[list(q.references)])) for q in Quadrants.prompts]
    return [Sample(image, "q", str(n), prompt, pool, q.targets) for n, (q, prompt) in enumerate(asks)]


@pytest.mark.parametrize("name", ["reasonseg", "muse"])
def test_reasoning_data_sets_are_evaluated(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny Text4Seg++ that writes the right regions, through `evaluate` on files in the published form."""
    root = reasonseg_files(tmp_path) if name == "reasonseg" else muse_files(tmp_path)
    codec = BoxwiseCodec(bins=64)
    system = wide("text4segpp", codec=codec)
    truth = list(find_entry(name).open(root, "val"))
    texts = [codec.encode(one.gt_pool[list(one.targets)]) for one in truth]
    assert all("<ref>roi0</ref>" in text for text in texts) and (name == "reasonseg" or "roi1" in texts[0])
    questions = says(system, monkeypatch, texts)
    report = evaluate(Model(system, threshold=0.0), name, root, "val")
    assert questions == [f"{one.prompt.text} Answer with masks." for one in truth]
    assert report["protocol"]["name"] == name and report["samples"] == len(truth) and report["undecoded"] == 0
    assert report["metrics"]["overall"]["gIoU"] > 90  # 64 cells do not divide 10 and 12 pixels evenly
    says(system, monkeypatch, ["I see none."] * len(truth))
    assert evaluate(Model(system, threshold=0.0), name, root, "val")["metrics"]["overall"]["gIoU"] == 0


def test_words_are_learned(tmp_path: Path) -> None:
    """Captions and masks in one batch, by heart."""
    system = tiny("text4segpp")
    queries = [Query('"Describe the image."', (), (), answer="four bars"), Query("red", (), (0,))]
    preparer = system.preparer(PrepareSettings(), True)
    source = Quadrants()
    source.prompts = (*queries,)  # type: ignore[misc, assignment]
    batch = preparer.collate([preparer.prepare(source, 0, np.random.default_rng(0), 2)])
    optimiser = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(150):
        loss = system.loss(batch)["loss"]
        if float(loss.detach()) < 5e-3:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    words, masks = Model(system.eval()).select_many(Quadrants().load(0).image, [q.text for q in queries])
    assert words.text == "four bars" and words.no_target and words.failure is None
    assert np.array_equal(masks.mask, Quadrants().load(0).masks[0].numpy())


def test_predict_shows_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    system = wide("text4seg")
    monkeypatch.setattr(loading, "load_model", lambda options: Model(system))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "p.png")
    text = system.codec.encode(Quadrants().load(0).masks[:1], ["red"])
    says(system, monkeypatch, ["Two mugs.", "no mask", text])
    words = ["--prompt", '"Describe the image."', "--prompt", "blue", "--prompt", "red"]
    assert predict("--image", tmp_path / "p.png", *words, "--threshold", "0", "--output", tmp_path / "o") == 0
    shown = capsys.readouterr().out
    assert "nothing answers the prompt; the text is 'Two mugs.'" in shown and "candidates" not in shown
    assert "could not be decoded, the text has no <seg>" in shown and "p.png: 1 mask(s) -> " in shown
    answers = [json.loads((tmp_path / f"o/p.{n}.json").read_text()) for n in (1, 2, 3)]
    assert answers[0]["text"] == "Two mugs." and answers[0]["no_target"] and "failure" not in answers[0]
    assert answers[1]["failure"] == "the text has no <seg>" and len(answers[2]["masks"]) == 1
