"""Configs laid over each other: by their order, and by what they say themselves."""

from pathlib import Path

import pytest

from maskselect.backends.configs import read_configs, with_bases
from maskselect.training.cli import _with_bases


def _files(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {name: folder / f"{name}.yaml" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    return paths


def test_a_config_stands_behind_what_it_is_laid_over(tmp_path: Path) -> None:
    f = _files(tmp_path, a="x: 1\ny: {p: 1, q: 1}", b="laid_over: a.yaml\ny: {q: 2}", c="laid_over: b.yaml\nz: 3")
    assert with_bases([f["c"]]) == [f["a"], f["b"], f["c"]]
    assert read_configs([f["c"]]) == {"x": 1, "y": {"p": 1, "q": 2}, "z": 3}
    assert read_configs([f["a"], f["b"]]) == {"x": 1, "y": {"p": 1, "q": 2}}  # the base is not laid over it again


def test_the_command_line_keeps_its_order(tmp_path: Path) -> None:
    f = _files(tmp_path, a="x: 1", b="laid_over: a.yaml", c="z: 1")
    a, b, c = (str(f[name]) for name in "abc")
    given = ["fit", "-c", b, "--x", "2", f"--config={c}", "--y=3"]
    assert _with_bases(given) == ["fit", "--config", a, "--config", b, "--x", "2", "--config", c, "--y=3"]
    assert _with_bases(["-c", a, "-c", b]) == ["--config", a, "--config", b]
    assert _with_bases(["fit", "--help"]) == ["fit", "--help"]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("laid_over: a.yaml", ValueError, "is laid over itself"),
        ("laid_over: gone.yaml", FileNotFoundError, "gone.yaml does not exist"),
        ("x: [", ValueError, "is not valid YAML"),
        ("just words", ValueError, "holds no settings by name"),
    ],
)
def test_bad_configs_are_told(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_configs([_files(tmp_path, a=text)["a"]])
