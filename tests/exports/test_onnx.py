"""The ONNX files of compact RAS and its SAM against the system's own answers, run by PyTorch and by onnxruntime."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from maskselect.backends.sam import decode_prompts
from maskselect.cli import main
from maskselect.exports import onnx as exports
from maskselect.exports.onnx import export_onnx, sam_graphs, selector_graphs
from maskselect.proposers.sam import SamProposer
from maskselect.structures.sample import Prompt
from maskselect.systems.loading import load_system
from tests.systems.skeleton import Halves

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[[str, Mapping[str, Tensor]], list[np.ndarray]]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def ras() -> Any:
    return load_system("ras")[0].eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes."""
    folder = tmp_path_factory.mktemp("onnx") / "ras"
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert main(["export", "--model", "ras", "--onnx", str(folder)], "maskselect") == 0
    return folder


@pytest.fixture(
    params=[pytest.param("torch", id="torch"), pytest.param("onnxruntime", id="onnxruntime", marks=pytest.mark.slow)]
)
def run(request: pytest.FixtureRequest, ras: Any) -> Run:
    """Runs a network by name. "torch" runs what is exported, and takes no time."""
    if request.param == "onnxruntime":
        import onnxruntime

        folder = request.getfixturevalue("files")

        def by_file(name: str, inputs: Mapping[str, Tensor]) -> list[np.ndarray]:
            session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
            return session.run(None, {key: value.numpy() for key, value in inputs.items()})

        return by_file
    sam = ras.proposer.proposer.sam
    networks = {name: graph.network for name, graph in (selector_graphs(ras) | sam_graphs(sam)).items()}

    @torch.no_grad()
    def by_module(name: str, inputs: Mapping[str, Tensor]) -> list[np.ndarray]:
        out = networks[name](**inputs)
        return [part.numpy() for part in (out if isinstance(out, tuple) else (out,))]

    return by_module


def picture() -> np.ndarray:
    return np.array(Image.open(ROOT / "docs" / "example.png").convert("RGB"))


def prompt_ids(text: str, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> Tensor:
    """As docs/guide/onnx.md describes."""
    ids: list[int] = []
    for number, piece in enumerate(text.split("<mask-ref>")):
        if number:
            ids += [facts["reference_pre_id"], facts["reference_pre_id"] + number]
        ids += tokenizer.encode(piece.strip(), add_special_tokens=False).ids
    return torch.tensor([*ids, *facts["closing_ids"]], dtype=torch.int64)


def facts_of(ras: Any) -> dict[str, Any]:
    chat = ras.lmm.chat(False)
    return {"reference_pre_id": ras.lmm.model.get_input_embeddings().num_embeddings, "closing_ids": chat.closing}


@pytest.mark.parametrize(
    ("text", "references", "masks"),
    [("the red leaves", 0, None), ("left of <mask-ref>", 1, 5), ("between <mask-ref> and <mask-ref>", 2, 2)],
)
def test_scores_are_those_of_the_system(text: str, references: int, masks: int | None, run: Run, ras: Any) -> None:
    image = picture()
    reading = ras.read(image)
    pool = reading.pool if masks is None else reading.pool.keep(torch.arange(masks, dtype=torch.int64))
    if masks is not None:
        features = ras.pool_features(reading.maps, pool)
        reading = type(reading)(pool, reading.maps, features, ras.read_candidates(image, features))
    given = pool.masks[:references]
    expected = ras.answer(reading, [Prompt(text, given)], 0.5)[0].pool_scores
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    small = F.interpolate(pixels, (128, 128), mode="bilinear", align_corners=False, antialias=True)
    (features,) = run("features", {"image": pixels, "masks": pool.masks, "scores": pool.scores})
    ones = torch.ones(references, dtype=torch.float32)
    pooled = run("features", {"image": pixels, "masks": given, "scores": ones})[0] if references else features[:0]
    keys, values, candidates = run("read", {"image": small, "features": torch.from_numpy(features)})
    tokenizer = Tokenizer.from_str(exports.COMPACT_FILE.read_text())
    inputs = {"keys": keys, "values": values, "candidates": candidates, "references": pooled}
    ids = prompt_ids(text, tokenizer, facts_of(ras))
    (scores,) = run("answer", {name: torch.from_numpy(part) for name, part in inputs.items()} | {"ids": ids})
    assert expected is not None and len(expected) == len(scores)
    assert masks is not None or expected.max() > 0.5
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


def test_masks_of_sam_are_those_of_its_decoder(run: Run, ras: Any) -> None:
    """Points with padding, and boxes, in batches of one and of two prompts."""
    proposer: SamProposer = ras.proposer.proposer
    image = picture()
    embedding = proposer.network.embed(image)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    (found,) = run("sam_encoder", {"image": pixels})
    np.testing.assert_allclose(found, embedding, rtol=0, atol=TOLERANCE)
    point, boxes = torch.tensor([[218.0, 175.0]]), torch.tensor([[10.0, 20.0, 90.0, 70.0], [100.0, 90.0, 250.0, 240.0]])
    as_labels = {
        "point": (torch.stack([point, torch.zeros(1, 2)], 1), torch.tensor([[1.0, -1.0]])),
        "boxes": (boxes.reshape(2, 2, 2), torch.tensor([[2.0, 3.0]] * 2)),
    }
    tokens = {"point": proposer.network.encode_points(point), "boxes": proposer.network.encode_boxes(boxes)}
    for kind, (points, labels) in as_labels.items():
        with torch.no_grad():
            low, iou = decode_prompts(proposer.sam, embedding, tokens[kind][None])
        logits, scores = run("sam_decoder", {"embedding": embedding, "points": points, "labels": labels})
        scale = float(low.abs().max())
        np.testing.assert_allclose(logits / scale, low[0] / scale, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(scores, iou[0], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_the_files_are_enough_for_another_program(files: Path, ras: Any) -> None:
    assert {path.name for path in files.iterdir()} == {
        *(f"{name}.onnx" for name in ("features", "read", "answer", "sam_encoder", "sam_decoder")),
        "selector.json",
        "tokenizer.json",
    }
    facts = json.loads((files / "selector.json").read_text())
    assert facts_of(ras).items() <= facts.items()
    assert (facts["threshold"], facts["image_side"], facts["small_image_side"], facts["sam_side"]) == (
        0.88,
        256,
        128,
        256,
    )
    assert Tokenizer.from_file(str(files / "tokenizer.json")).get_vocab_size() == len(ras.lmm.tokenizer)


def test_other_systems_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"halves.*compact RAS"):
        export_onnx(Halves(), tmp_path / "x", 0.5)
    assert main(["export", "--model", "llmseg", "--onnx", str(tmp_path / "x")], "maskselect") == 2
    assert "llmseg" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_filled_folder_is_refused_before_anything_is_exported(tmp_path: Path, ras: Any) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=str(tmp_path)):
        export_onnx(ras, tmp_path, 0.5)
