"""`predict`: several prompts, consoles that cannot show everything, names that are not UTF-8, options given twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect import cli
from maskselect.cli import loading
from maskselect.cli.output import PatientStream, patient_output
from maskselect.cli.parsing import Parser, words
from maskselect.predictor import Model
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.references import PointRef
from tests.cli.asking import predict
from tests.systems.tiny import tiny_ras

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from maskselect.cli import loading, main
from maskselect.predictor import Model
from tests.systems.tiny import tiny_ras
loading.load_model = lambda options: Model(tiny_ras(), threshold=0.0)
sys.exit(main(prog="maskselect"))
"""
"""`maskselect` with a tiny model, in a process of its own."""


class Asked:
    """Answers with nothing, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], Any]] = []

    def select(
        self, image: np.ndarray, prompt: str, references: Any = None, threshold: float | None = None
    ) -> MaskGroup:
        return self.select_many(image, [prompt], [references], threshold)[0]

    def select_many(self, image: np.ndarray, prompts: list[str], references: Any, threshold: Any) -> list[MaskGroup]:
        self.calls.append((prompts, references))
        none = np.zeros((0, *image.shape[:2]), bool)
        return [MaskGroup(image, text, none, np.zeros(0, np.float32), 3, threshold or 0.5, none) for text in prompts]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    model = Asked()
    monkeypatch.setattr(loading, "load_model", lambda options: model)
    return model


# Several prompts.
def test_several_prompts_have_numbered_files(
    asked: Asked, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict("--image", image, "--prompt", "the mugs", "--prompt", "all\tballs", "--output", out) == 0
    names = [f"cup.{n}.{end}" for n in (1, 2) for end in ("json", "mask.png", "overlay.png")]
    assert sorted(p.name for p in out.iterdir()) == names
    assert [json.loads((out / f"cup.{n}.json").read_text())["prompt"] for n in (1, 2)] == ["the mugs", "all\tballs"]
    assert asked.calls == [(["the mugs", "all\tballs"], [[], []])]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "cup.1.json" in lines[0] and "cup.2.json" in lines[1]


def test_a_real_model_answers_each_prompt_as_if_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)).save(tmp_path / "cup.png")
    monkeypatch.setattr(loading, "load_model", lambda options: Model(tiny_ras(), threshold=0.0))
    prompts, mask = ["stars", "left of <mask-ref>"], tmp_path / "m.png"
    Image.new("L", (40, 32), 255).save(mask)
    options = [word for text in prompts for word in ("--prompt", text)]
    assert predict("--image", tmp_path / "cup.png", *options, "--reference", mask, "--output", tmp_path / "both") == 0
    assert predict("--image", tmp_path / "cup.png", *options[:2], "--output", tmp_path / "one") == 0
    first, alone = (json.loads((tmp_path / name).read_text()) for name in ("both/cup.1.json", "one/cup.json"))
    assert first["prompt"] == "stars" and [m["segmentation"] for m in first["masks"]] == [
        m["segmentation"] for m in alone["masks"]
    ]


def test_references_go_to_the_one_prompt_that_points(asked: Asked, image: Path, tmp_path: Path) -> None:
    options = [
        "--prompt",
        "stars",
        "--prompt",
        "<mask-ref>, <mask-ref>",
        "--reference",
        "point:1,2",
        "--reference",
        "point:3,4",
    ]
    assert predict("--image", image, *options, "--output", tmp_path / "out") == 0
    assert asked.calls[0][1] == [[], [PointRef((1, 2)), PointRef((3, 4))]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "<mask-ref>", "--prompt", "b <mask-ref>", "--reference", "point:1,1"], "2 of 2 prompts hold"),
        (["--prompt", "a", "--prompt", "b", "--reference", "point:1,1"], "prompt has 0 <mask-ref> but 1 reference"),
        (["--prompt", "a", "--prompt", "b <mask-ref>"], "prompt has 1 <mask-ref> but 0 reference"),
        (["--prompt", "a", "--prompt", "\u200b"], "prompt is empty"),
        (["--prompt", "a\udcff"], "lone surrogate"),
        (["--prompt", "a", "--device", "cuda:99"], "device 'cuda:99'"),
        (["--prompt", "<mask-ref>", "--reference", "https://a.org/m.png"], "mask https://a.org/m.png is a URL"),
    ],
)  # fmt: skip
def test_what_is_refused_before_loading(
    monkeypatch: pytest.MonkeyPatch, image: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: pytest.fail("the model was loaded"))
    assert predict("--image", image, *options, "--output", image.parent / "out") == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not (image.parent / "out").exists()


def test_answers_do_not_overwrite_a_numbered_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = image.with_name("cup.2.mask.png")
    Image.new("RGB", (4, 4)).save(other)
    options = ["--prompt", "a", "--prompt", "b", "--output", image.parent]
    assert predict("--image", image, other, *options) == 2
    assert "would overwrite the image" in capsys.readouterr().err


# Options.
@pytest.mark.parametrize("option", ["--model", "--output", "--threshold", "--device"])
def test_an_option_given_twice_is_refused(image: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    value = {"--threshold": "0.5", "--device": "cpu"}.get(option, "x")
    with pytest.raises(SystemExit):
        predict("--image", image, "--prompt", "a", option, value, option, value)
    assert f"argument {option}: is given twice; expected it once" in capsys.readouterr().err


def test_a_parser_can_be_used_again() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--a")
    parser.add_argument("b", nargs="?")
    assert [vars(parser.parse_args(["--a", "1", "2"])) for _ in range(2)] == [{"a": "1", "b": "2"}] * 2


@pytest.mark.parametrize("device", ["mps", "meta", "tpu", "cuda:x", "cuda:-1", ""])
def test_devices_that_cannot_be(image: Path, capsys: pytest.CaptureFixture[str], device: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        predict("--image", image, "--prompt", "a", "--device", device)
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and "expected auto, cpu, cuda or cuda:N" in told and told.count("\n") == 1


def test_images_may_be_given_in_several_options(asked: Asked, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert predict("--image", *files[:2], "--image", files[2], "--prompt", "a", "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == 3


def test_a_url_is_no_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict("--image", image, "https://a.org/b.png", "--prompt", "a")
    assert "https://a.org/b.png is a URL; expected a file or folder: download it first" in capsys.readouterr().err


# Formats.
class Halves:
    """Answers with the left half of the picture."""

    def select(self, image: np.ndarray, prompt: str, references: Any = None, threshold: Any = None) -> MaskGroup:
        return self.select_many(image, [prompt])[0]

    def select_many(self, image: np.ndarray, prompts: list[str], **rest: Any) -> list[MaskGroup]:
        half = np.zeros((1, *image.shape[:2]), bool)
        half[:, :, : image.shape[1] // 2] = True
        return [MaskGroup(image, text, half, np.ones(1, np.float32), 3, 0.5, half[:0]) for text in prompts]


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda options: Halves())


def test_only_the_named_formats_are_written(halves: None, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict("--image", image, "--prompt", "a", "--formats", "svg, masks", "--output", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["cup.masks", "cup.svg"]
    (mask,) = (out / "cup.masks").iterdir()
    assert mask.name == "00000.png" and set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}


@pytest.mark.parametrize("name", ["coco", "coco-polygons", "labelme", "yolo"])
def test_data_sets_of_a_folder(halves: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A picture that cannot be read is left out; `data check` finds nothing wrong with the others."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for stem in ("größe", "b"):
        Image.new("RGB", (20, 10), "teal").save(folder / f"{stem}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    prompts = ["--prompt", "Ball", "--prompt", "чашка"]
    assert predict("--image", folder, *prompts, "--formats", f"json,{name}", "--output", out) == 1
    captured = capsys.readouterr()
    assert f"2 image(s) with 4 mask(s) -> {out / name}" in captured.out and "broken.png" in captured.err
    assert len(list(out.glob("*.json"))) == 4 and not list(out.glob("*.png"))
    assert {path.name for path in (out / name).rglob("*.png")} == {"größe.png", "b.png"}
    assert cli.main(["data", "check", "own", "--root", str(out / name), "--split", "all"], prog="maskselect") == 0
    assert predict("--image", folder, *prompts, "--formats", name, "--output", out) == 2
    assert f"{out / name} is there already; expected a new or an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "said"), [("json,pascal", "'pascal' is no format"), (" ,", "no format is named")])
def test_unknown_formats(image: Path, capsys: pytest.CaptureFixture[str], given: str, said: str) -> None:
    with pytest.raises(SystemExit):
        predict("--image", image, "--prompt", "a", "--formats", given)
    told = capsys.readouterr().err
    assert said in told and "expected some of json, mask, overlay" in told and told.count("\n") == 1


def test_a_picture_in_a_folder_of_masks_is_not_overwritten(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = image.with_name("cup.masks") / "00000.png"
    inner.parent.mkdir()
    Image.new("RGB", (4, 4)).save(inner)
    assert predict("--image", image, inner, "--prompt", "a", "--formats", "masks", "--output", image.parent) == 2
    assert f"would overwrite the image {inner}" in capsys.readouterr().err


# Output streams.
def run(folder: Path, options: list[str | bytes], stdout: Any = subprocess.PIPE, **environment: str) -> Any:
    command: list[Any] = [sys.executable, "-c", PROGRAM, "predict", *options]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=own, stdout=stdout, stderr=subprocess.PIPE, timeout=300, check=False)


@pytest.fixture
def umlaut(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 32), "teal").save(tmp_path / "grün.png")
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_cannot_show_a_name(umlaut: Path, encoding: str) -> None:
    done = run(
        umlaut, ["--image", "grün.png", "--prompt", "кружка größer", "--output", "out"], PYTHONIOENCODING=encoding
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert ("gr\\xfcn.png" if encoding == "ascii" else "grün.png").encode("cp1252") in done.stdout
    record = json.loads((umlaut / "out" / "grün.json").read_text())
    assert (record["image"], record["prompt"]) == ("grün.png", "кружка größer")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_costs_no_answer(umlaut: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = run(umlaut, ["--image", "grün.png", "--prompt", "a", "--output", "out"], stdout=full)
    assert done.returncode == 0 and len(list((umlaut / "out").iterdir())) == 3
    told = [line for line in done.stderr.decode().splitlines() if "Warning" not in line and "forward_call" not in line]
    assert told == ["warning: standard output cannot be written: [Errno 28] No space left on device"]


@pytest.mark.skipif(not __file__.isascii(), reason="Python itself cannot start from this path under an ASCII locale")
def test_an_ascii_locale_reads_prompts_and_names(umlaut: Path) -> None:
    options = ["--image", "grün.png".encode(), "--prompt", "größte Kugel".encode(), "--output", "out"]
    done = run(umlaut, options, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    record = json.loads((umlaut / "out" / "grün.json").read_text(encoding="utf-8"))
    assert (record["image"], record["prompt"]) == ("grün.png", "größte Kugel")


def test_a_name_that_is_not_utf8(asked: Asked, tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.png")
    try:
        Image.new("RGB", (8, 8), "teal").save(tmp_path / "a.png")
        os.rename(tmp_path / "a.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert predict("--image", tmp_path / name, "--prompt", "a", "--output", tmp_path / "out") == 0
    written = (tmp_path / "out" / os.fsdecode(b"bad\xff.json")).read_bytes()
    assert json.loads(written.decode())["image"] == f"{tmp_path}/bad\\xff.png"


def test_a_dark_picture_is_one_line_on_standard_error(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8), 1023, np.uint16)).save(tmp_path / name)
    assert predict("--image", tmp_path / "a.png", tmp_path / "b.png", "--prompt", "x", "--output", tmp_path / "o") == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.startswith("maskselect: warning: image ") for line in told)
    assert "a.png reads nearly black: no value is above 4 of 255; 10- or 12-bit" in told[0]


class Full:
    """A stream on a device without room."""

    encoding = "ascii"
    error: type[OSError] = OSError

    def write(self, text: str) -> int:
        raise self.error(28, "No space left on device")

    def flush(self) -> None:
        raise self.error(28, "No space left on device")


def test_streams_that_fail_are_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with patient_output():
        assert isinstance(sys.stdout, PatientStream)
        print("a", flush=True)
        print("b", flush=True)
    assert isinstance(sys.stdout, Full)
    assert capsys.readouterr().err == "warning: standard output cannot be written: [Errno 28] No space left on device\n"
    monkeypatch.setattr(Full, "error", BrokenPipeError)
    with patient_output():
        print("a", flush=True)
    assert capsys.readouterr().err == ""  # as when its reader has seen enough


def test_words_of_an_ascii_locale() -> None:
    assert words("größte") == "größte"
    assert words(os.fsdecode("größte".encode())) == "größte"
    assert words("gr\udcfcn") == "gr\udcfcn"  # no UTF-8 at all, which the prompt refuses
