"""The verifier against transformers' own processor and model: tiny random weights, loaded from folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from maskselect.lmm.intern_vl import InternVl
from maskselect.lmm.llava import Llava
from maskselect.lmm.qwen_vl import IMAGE, QwenVl
from maskselect.ops.marking import scaled_down
from maskselect.systems.verifying import CANDIDATE, REFERENCES, Piece, Region, Shown, Verifier, question_of
from tests.lmm.test_intern_vl import processor as intern_processor
from tests.lmm.test_intern_vl import write as write_intern
from tests.systems.tiny import SIZES
from tests.systems.tiny_public import write_qwen2_vl

PROMPT = "the red mugs left of <mask-ref>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def verifier(folder: Path) -> Verifier:
    return Verifier(QwenVl(model=str(folder)).eval(), picture_side=160, view_side=100, crop_side=60, rows=3)


def picture(height: int = 120, width: int = 170) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def masks() -> list[np.ndarray]:
    """Of three shapes, so that crops have different numbers of tokens."""
    made = []
    for rows, columns in (
        (slice(10, 60), slice(20, 80)),
        (slice(0, 118), slice(90, 110)),
        (slice(70, 90), slice(0, 160)),
    ):
        mask = np.zeros((120, 170), bool)
        mask[rows, columns] = True
        made.append(mask)
    return made


def regions(verifier: Verifier, references: bool = True) -> list[Region]:
    image, chosen = picture(), masks()
    pointed = [chosen[0]] if references else []
    return [
        Region(verifier.view(image, mask, pointed), verifier.crop(image, mask), number, references)
        for number, mask in enumerate(chosen)
    ]


def shown(region: Region) -> list[np.ndarray]:
    return [region.view, region.crop]


def chat(processor: Any, images: list[np.ndarray], text: str) -> Any:
    """What a user of transformers feeds to the model."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    written = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    pictures = [Image.fromarray(image) for image in images]
    return processor(images=pictures, text=[written], return_tensors="pt")


class Logged(Verifier):
    """Keeps the ids and positions that it lays out; image tokens have the id `image`."""

    image: int
    ids: list[int]
    places: list[Tensor]

    def _text(self, ids: Any, start: int) -> Piece:
        piece = super()._text(ids, start)
        self.ids += ids
        self.places.append(piece.positions)
        return piece

    def _shown(self, image: Shown, start: int) -> Piece:
        piece = super()._shown(image, start)
        self.ids += [self.image] * len(image.tokens)
        self.places.append(piece.positions)
        return piece


def logged(lmm: Any, **settings: Any) -> Logged:
    made = Logged(lmm, **settings)
    made.image = int(lmm.tokenizer.convert_tokens_to_ids(IMAGE if lmm.images_on_grids else "<IMG_CONTEXT>"))
    made.ids, made.places = [], []
    return made


def test_prompts_are_the_processors_token_by_token(folder: Path, verifier: Verifier) -> None:
    watched = logged(verifier.lmm, picture_side=160, view_side=100, crop_side=60)
    read = watched.read(picture())
    before, text = (list(watched.ids), list(watched.places)), question_of(PROMPT)
    for region in regions(watched):
        watched.ids, watched.places = list(before[0]), list(before[1])
        watched.probabilities(read, [region], [text])
        want = chat(AutoProcessor.from_pretrained(folder), [whole(watched), *shown(region)], text)
        assert watched.ids == want["input_ids"][0].tolist()
        kinds = (want["input_ids"] == watched.image).long()
        model: Any = verifier.lmm.model.model  # type: ignore[attr-defined]
        places, _ = model.get_rope_index(want["input_ids"], kinds, want["image_grid_thw"])
        assert torch.cat(watched.places).tolist() == places[:, 0].T.tolist()


def whole(verifier: Verifier) -> np.ndarray:
    """The whole picture as the verifier reads it."""
    return scaled_down(picture(), verifier.picture_side)


def test_probabilities_with_a_shared_prefix_are_transformers_own(folder: Path, verifier: Verifier) -> None:
    """Each is computed there from the whole chat, without a cache."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    text, wanted = question_of(PROMPT), []
    yes, no = (
        sorted({processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words})
        for words in (("Yes", "yes"), ("No", "no"))
    )
    for region in regions(verifier):
        with torch.no_grad():
            logits = model(**chat(processor, [whole(verifier), *shown(region)], text)).logits[0, -1]
        wanted.append((logits[yes].logsumexp(0) - logits[no].logsumexp(0)).sigmoid())
    found = verifier.probabilities(verifier.read(picture()), regions(verifier), [text] * 3)
    torch.testing.assert_close(found, torch.stack(wanted), atol=2e-4, rtol=1e-3)
    assert found.std() > 1e-3


def test_a_batch_equals_one_by_one_and_twice_is_the_same(verifier: Verifier) -> None:
    read, texts = verifier.read(picture()), [question_of(text) for text in ("stars", PROMPT, "the red mugs " * 9)]
    both = [*regions(verifier), *regions(verifier, references=False)]
    together = verifier.probabilities(read, both, texts * 2)
    assert torch.equal(together, verifier.probabilities(verifier.read(picture()), both, texts * 2))
    alone = [verifier.probabilities(read, [region], [text]) for region, text in zip(both, texts * 2, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert len(set(together.tolist())) == 6
    assert verifier.probabilities(read, [], []).shape == (0,)


def test_views_without_references_go_through_the_tower_once(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, texts, seen = verifier.read(picture()), ["stars"] * 3, []
    features = verifier.lmm.vision_features
    monkeypatch.setattr(verifier.lmm, "vision_features", lambda images: seen.append(len(images)) or features(images))
    first = verifier.probabilities(read, regions(verifier, references=False), texts)
    assert sum(seen) == 6 and len(read.kept) == 6
    again = verifier.probabilities(read, regions(verifier, references=False), texts)
    assert sum(seen) == 6 and torch.equal(first, again)
    verifier.probabilities(read, regions(verifier), texts)
    assert sum(seen) == 9  # with references every view is another one
    both = verifier.probabilities(verifier.read(picture()), regions(verifier)[:1] * 2, texts[:2])
    assert sum(seen) == 13 and both[0] == both[1]  # the picture, two views and a crop


def test_internvl_reads_pictures_in_a_line(tmp_path: Path) -> None:
    lmm = InternVl(model=str(write_intern(tmp_path))).eval()
    watched = logged(lmm)
    read, text = watched.read(picture()), "mug"
    region = regions(watched)[0]
    found = watched.probabilities(read, [region], [text])
    assert found.shape == (1,) and 0 < float(found) < 1
    content = [*({"type": "image"} for _ in range(3)), {"type": "text", "text": text}]
    made = intern_processor()
    written = made.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    images = [Image.fromarray(image) for image in (picture(), *shown(region))]
    want = made(images=images, text=[written], images_kwargs={"crop_to_patches": False}, return_tensors="pt")
    assert watched.ids == want["input_ids"][0].tolist()
    assert torch.cat(watched.places)[:, 0].tolist() == list(range(len(watched.ids)))
    with torch.no_grad():
        logits = lmm.model(**{k: want[k] for k in ("input_ids", "pixel_values")}).logits[0, -1]
    yes, no = (logits[sorted({lmm.token_ids(word)[0] for word in words})] for words in (("Yes", "yes"), ("No", "no")))
    torch.testing.assert_close(found[0], (yes.logsumexp(0) - no.logsumexp(0)).sigmoid(), atol=1e-3, rtol=1e-3)


def test_the_compact_language_model_fits_too() -> None:
    torch.manual_seed(0)
    compact = Verifier(Llava(sizes=SIZES).eval(), rows=2)
    found = compact.probabilities(compact.read(picture()), regions(compact), ["mug"] * 3)
    assert found.shape == (3,) and bool(((found > 0) & (found < 1)).all())


def test_references_are_outlined_and_named(verifier: Verifier) -> None:
    image, (first, second, third) = np.full((120, 170, 3), 90, np.uint8), masks()
    bare, view = verifier.view(image, first, []), verifier.view(image, first, [second, third])

    def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
        return bool((picture == colour).all(-1).any())

    assert [shows(view, colour) for colour in (CANDIDATE[1], REFERENCES[0][1], REFERENCES[1][1])] == [True] * 3
    assert [shows(bare, colour) for colour in (CANDIDATE[1], REFERENCES[0][1])] == [True, False]
    own = verifier.view(image, second, [second])
    assert shows(own, CANDIDATE[1]) and shows(own, REFERENCES[0][1])  # a candidate that is the reference
    assert verifier.crop(image, first).shape == (52, 60, 3)
    dot = np.zeros_like(first)
    dot[0, 0] = True
    assert verifier.crop(image, dot).shape == (60, 60, 3)  # enlarged
    text = question_of("mugs between <mask-ref> and <mask-ref>")
    assert '"mugs between the region outlined in blue and the region outlined in green"' in text
    assert "The regions outlined in blue and green are references." in text
    assert "The region outlined in blue is a reference." in question_of(PROMPT)
    assert "reference" not in question_of("the red mugs")
    with pytest.raises(ValueError, match=r"prompt has 7 <mask-ref>; this system .* at most 6"):
        question_of("between " + "<mask-ref> " * 7)


def test_what_does_not_fit_into_the_context_is_refused(tmp_path: Path) -> None:
    small = Verifier(QwenVl(model=str(write_qwen2_vl(tmp_path, context=90))).eval(), view_side=60, crop_side=60)
    with pytest.raises(ValueError, match="the context of the language model has 90"):
        small.probabilities(small.read(picture()), regions(small), [question_of(PROMPT)] * 3)
