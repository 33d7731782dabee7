import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect import cli
from maskselect.cli import loading
from maskselect.cli.program import VERBS
from maskselect.ops import rle
from maskselect.structures.facts import ModelFacts
from maskselect.structures.masks import MaskSet
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.provenance import Provenance
from maskselect.structures.references import BoxRef, MaskRef, PointRef
from tests.cli.asking import predict

TOOLS = Path(__file__).resolve().parents[1] / "tools"
KEYS = ["image", "size", "prompt", "model", "threshold", "no_target", "candidates", "masks"]


class StubModel:
    """Chooses the left half, then the upper quarter of it; nothing for "nothing"."""

    proposers: tuple[Provenance, ...] = ()

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def facts(self) -> ModelFacts:
        return ModelFacts(proposers=self.proposers)

    def candidates(self, image: np.ndarray) -> MaskSet:
        masks = torch.zeros(2, *image.shape[:2], dtype=torch.bool)
        masks[0, :, : image.shape[1] // 2] = masks[1, : image.shape[0] // 4, : image.shape[1] // 2] = True
        return MaskSet(masks, torch.tensor([0.9, 0.7]), "stub")

    def select(
        self, image: np.ndarray, text: str, references: list | None = None, threshold: float | None = None
    ) -> MaskGroup:
        self.calls.append({"text": text, "references": references, "threshold": threshold})
        pool = self.candidates(image)
        count = 0 if "nothing" in text else 2
        masks, scores = pool.masks[:count].numpy(), pool.scores[:count].numpy()
        none = np.zeros((0, *image.shape[:2]), bool)
        cut = 0.5 if threshold is None else threshold
        return MaskGroup(image, text, masks, scores, len(pool), cut, none, pool=pool)

    def select_many(
        self, image: np.ndarray, prompts: list[str], references: list | None = None, **_: object
    ) -> list[MaskGroup]:
        return [self.select(image, prompt) for prompt in prompts]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StubModel:
    stub = StubModel()
    monkeypatch.setattr(loading, "load_model", lambda options: stub)
    return stub


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(options: object) -> None:
        raise AssertionError("the model was loaded before the input was checked")

    monkeypatch.setattr(loading, "load_model", refuse)


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one sentence on standard error."""
    assert status == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


# The contract of predict.
def test_the_three_files(model: StubModel, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict("--image", image, "--prompt", "the mugs", "--output", out) == 0
    assert sorted(p.name for p in out.iterdir()) == ["cup.json", "cup.mask.png", "cup.overlay.png"]
    answer = json.loads((out / "cup.json").read_text())
    assert list(answer) == KEYS
    assert (answer["size"], answer["prompt"], answer["model"]) == ([32, 40], "the mugs", "ras")
    assert (answer["threshold"], answer["no_target"], answer["candidates"]) == (0.5, False, 2)
    assert [list(m) for m in answer["masks"]] == [["segmentation", "score", "bbox", "area"]] * 2
    assert [m["bbox"] for m in answer["masks"]] == [[0, 0, 20, 32], [0, 0, 20, 8]]
    assert [m["area"] for m in answer["masks"]] == [640, 160]
    assert rle.decode(answer["masks"][0]["segmentation"]).sum() == 640
    mask = Image.open(out / "cup.mask.png")
    assert (mask.mode, mask.size) == ("L", (40, 32))
    assert sorted(mask.getcolors()) == [(640, 0), (640, 255)]
    assert Image.open(out / "cup.overlay.png").mode == "RGB"


def test_nothing_is_an_answer_too(model: StubModel, image: Path, tmp_path: Path) -> None:
    assert predict("--image", image, "--prompt", "nothing", "--output", tmp_path, "--threshold", 0.25) == 0
    answer = json.loads((tmp_path / "cup.json").read_text())
    assert (answer["no_target"], answer["masks"], answer["threshold"]) == (True, [], 0.25)
    assert Image.open(tmp_path / "cup.mask.png").getcolors() == [(40 * 32, 0)]


def test_references_reach_the_model_in_order(model: StubModel, image: Path, tmp_path: Path) -> None:
    Image.new("L", (40, 32), 1).save(tmp_path / "m.png")
    prompt = "between <mask-ref>, <mask-ref> and <mask-ref>"
    references = ["box:1,2,30,20", str(tmp_path / "m.png"), "point:3,4"]
    options = [word for text in references for word in ("--reference", text)]
    assert predict("--image", image, "--prompt", prompt, *options, "--output", tmp_path / "out") == 0
    box, mask, point = model.calls[0]["references"]
    assert box == BoxRef((1.0, 2.0, 30.0, 20.0))
    assert isinstance(mask, MaskRef)
    assert mask.mask.all()
    assert point == PointRef((3.0, 4.0))


def test_the_default_output_folder(
    model: StubModel, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict("--image", image, "--prompt", "mugs") == 0
    assert (tmp_path / "outputs" / "cup.json").is_file()


# Batches.
def test_a_folder_and_files(model: StubModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/a.png", "in/b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    out = tmp_path / "out"
    assert predict("--image", tmp_path / "in", tmp_path / "c.png", "--prompt", "mugs", "--output", out) == 0
    assert len(list(out.iterdir())) == 9


def test_a_batch_goes_on_past_bad_images_and_names_them(
    model: StubModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "d.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no image")
    files = [tmp_path / f"{stem}.png" for stem in "abcd"]
    out = tmp_path / "out"
    assert predict("--image", *files, "--prompt", "mugs", "--output", out) == 1
    assert sorted(p.name for p in out.glob("*.json")) == ["a.json", "d.json"]
    assert len(list(out.iterdir())) == 6
    errors = capsys.readouterr().err
    assert "2 of 4 images failed" in errors
    assert "b.png is not an image" in errors
    assert "c.png does not exist" in errors


def test_two_images_of_one_stem(no_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.png", tmp_path / "a.jpg"]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    said = refused(capsys, predict("--image", *files, "--prompt", "mugs", "--output", tmp_path / "out"))
    assert "share the stem" in said


# Bad input: status 2, one sentence, nothing written, and all of it before the model is loaded.
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "  "], "prompt is empty"),
        (["--prompt", "left of <mask-ref>"], "prompt has 1 <mask-ref> but 0 reference mask(s)"),
        (["--prompt", "mugs", "--reference", "point:1,1"], "prompt has 0 <mask-ref> but 1 reference mask(s)"),
        (["--prompt", "<mask-ref>", "--reference", "box:1,2"], "expected box:x0,y0,x1,y1"),
        (["--prompt", "<mask-ref>", "--reference", "box:50,50,60,60"], "outside the image, which is 40x32"),
        (["--prompt", "<mask-ref>", "--reference", "point:40,1"], "outside the image, which is 40x32"),
        (["--prompt", "<mask-ref>", "--reference", "small.png"], "small.png is 8x8 but the image is 40x32"),
        (["--prompt", "<mask-ref>", "--reference", "zero.png"], "zero.png is empty"),
        (["--prompt", "<mask-ref>", "--reference", "gone.png"], "gone.png does not exist"),
        (["--prompt", "mugs", "--image", "gone.png"], "image gone.png does not exist"),
        (["--prompt", "mugs", "--image", "text.png"], "text.png is not an image"),
        (["--prompt", "mugs", "--image", "none"], "none holds no image"),
        (["--prompt", "mugs", "--output", "text.png"], "output folder text.png is not writable"),
        (["--prompt", "mugs", "--output", "text.png/deeper"], "output folder text.png/deeper is not writable"),
    ],
)
def test_bad_input(
    no_model: None,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 255).save("small.png")
    Image.new("L", (40, 32)).save("zero.png")
    Path("text.png").write_text("no image")
    Path("none").mkdir()
    before = sorted(Path().rglob("*"))
    defaults = [] if "--image" in options else ["--image", image.name]
    assert said in refused(capsys, predict(*defaults, *options))
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("error", [FileNotFoundError("checkpoint 'x' not found"), ValueError("too\nlong")])
def test_a_model_that_cannot_be_loaded(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(options: object) -> None:
        raise error

    monkeypatch.setattr(loading, "load_model", fail)
    files = [image, image.with_name("other.jpg")]
    for images in (files[:1], files):
        said = refused(capsys, predict("--image", *images, "--prompt", "x", "--output", tmp_path / "out"))
        assert " ".join(str(error).split()) in said
        assert not (tmp_path / "out").exists()


def test_a_traceback_on_request(no_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSELECT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        predict("--image", tmp_path / "gone.png", "--prompt", "x", "--output", tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [[], ["--image", "a.png"], ["--image", "a.png", "--prompt", "x", "--threshold", "2"], ["--device", "tpu"]],
)
def test_bad_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        predict(*options)
    assert "maskselect predict --help" in refused(capsys, int(str(stopped.value)))


# The other verbs.
def test_evaluate_writes_a_report(model: StubModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "deep" / "report.json"
    options = ["--dataset", "scenes", "--split", "val", "--limit", "5", "--output", str(report)]
    assert cli.main(["evaluate", *options]) == 0
    written = json.loads(report.read_text())
    assert list(written)[:6] == ["dataset", "split", "model", "samples", "protocol", "metrics"]
    assert (written["dataset"], written["split"], written["model"], written["samples"]) == ("scenes", "val", "ras", 5)
    assert {"gIoU", "cIoU", "F1", "N-acc", "T-acc", "oracle_cIoU"} <= set(written["metrics"]["overall"])
    assert "gIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dataset", "maskgroups"], "needs --root"),
        (["--dataset", "maskgroups", "--root", "."], "no split 'test'"),
        (["--dataset", "scenes", "--split", "exam"], "no split 'exam'"),
        (["--dataset", "scenes", "--output", "file/report.json"], "not writable"),
    ],
)
def test_evaluate_refuses(
    no_model: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    options = options if "--output" in options else [*options, "--output", "report.json"]
    assert said in refused(capsys, cli.main(["evaluate", *options]))
    assert [p.name for p in Path().iterdir()] == ["file"]


def test_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", str(tmp_path), "--split", "test-look", "--count", "2", "--seed", "3", "--size", "64", "80"]
    assert cli.main(["make_scenes", *options]) == 0
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["test-look-3-0.png", "test-look-3-1.png"]
    assert Image.open(tmp_path / "images" / "test-look-3-0.png").size == (80, 64)
    assert "no split" in refused_scenes(tmp_path / "no", capsys)
    assert not (tmp_path / "no").exists()


def refused_scenes(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    options = ["--output", str(folder), "--split", "x", "--count", "1", "--seed", "0"]
    return refused(capsys, cli.main(["make_scenes", *options]))


def test_propose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from maskselect.proposers.store import ProposalStore, content_key

    class Stub:
        def cache_key(self) -> str:
            return "0123456789ab"

        def propose(self, image: np.ndarray) -> MaskSet:
            return StubModel().candidates(image)

    monkeypatch.setattr("maskselect.proposers.loading.load_proposer", lambda name, device: Stub())
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    options = ["--images", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert cli.main(["propose", *options]) == 0
    stored = ProposalStore(tmp_path / "out").find("0123456789ab", content_key(np.zeros((8, 8, 3), np.uint8)))
    assert stored is not None and len(stored) == 2
    (tmp_path / "in" / "c.png").write_text("no image")
    capsys.readouterr()
    assert cli.main(["propose", *options, "--resume"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("0 images done, 2 were there already")
    assert "c.png is not an image" in captured.err
    assert "--resume to go on in it" in refused(capsys, cli.main(["propose", *options]))
    assert "does not exist" in refused(capsys, cli.main(["propose", "--images", "gone", "--output", str(tmp_path)]))


def test_a_proposer_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    options = ["--images", str(tmp_path), "--output", str(tmp_path / "out"), "--proposer"]
    assert "no-such" in refused(capsys, cli.main(["propose", *options, "no-such"]))
    assert "gone.yaml does not exist" in refused(capsys, cli.main(["propose", *options, "gone.yaml"]))


# Training shares the program.
@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "-c", "configs/ras.yaml"],
        ["fit", "--help"],
        ["validate", "--config", "x.yaml"],
    ],
)
def test_training_verbs_go_to_lightning(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    passed: list[list[str]] = []
    monkeypatch.setattr("maskselect.cli.program._train", lambda given: passed.append(given) or 0)
    assert cli.main(arguments, prog="lightning") == 0
    assert passed == [arguments]


def test_unknown_verbs_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected one of fit, validate, predict, serve, evaluate" in refused(capsys, cli.main(["segment"]))
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "predict --image FILE --prompt TEXT" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("maskselect 0.")


def test_help_is_instant() -> None:
    """Nothing heavy is imported: that, not the clock of a busy machine, is what makes it so."""
    code = """
import sys
from maskselect.cli import main
main(["--help"])
for verb in ("predict", "evaluate", "propose", "make_scenes"):
    try:
        main([verb, "--help"])
    except SystemExit as stopped:
        assert stopped.code == 0
print(sorted({"torch", "numpy", "PIL", "lightning", "transformers", "rich", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_tool_is_a_verb() -> None:
    assert {script.stem for script in TOOLS.glob("[!_]*.py")} <= set(VERBS)


@pytest.mark.parametrize("name", ["predict", "evaluate", "propose", "make_scenes"])
def test_tools_are_executable_from_anywhere(name: str, tmp_path: Path) -> None:
    script = TOOLS / f"{name}.py"
    assert os.access(script, os.X_OK)
    assert len(script.read_text().splitlines()) < 20
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, timeout=600, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith(f"usage: {name}.py")
