"""`maskselect serve`: what is wrong is said in one sentence before the model is loaded."""

import socket
import sys

import pytest

from maskselect.cli import main


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("maskselect.cli.loading.load_model", refuse)
    monkeypatch.delenv("MASKSELECT_TOKEN", raising=False)


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve"], "maskselect") == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert f"{package} is not installed" in sentence and "pip install 'maskselect[serve]'" in sentence


def test_other_machines_need_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"], "maskselect") == 2
    assert "MASKSELECT_TOKEN" in capsys.readouterr().err


def test_a_used_port_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "--port", port], "maskselect") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"maskselect serve: error: port {port} of 127.0.0.1 cannot be used") and "free" in error


@pytest.mark.parametrize("options", [["--port", "99999"], ["--upload-mib", "0"], ["--host"], ["--token", "secret"]])
def test_bad_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", *options], "maskselect")
    assert "serve: error:" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"], "maskselect")
    text = capsys.readouterr().out
    options = ("host", "port", "upload-mib", "megapixels", "frames", "seconds", "clip-seconds", "waiting", "pictures")
    assert all(f"--{name}" in text for name in (*options, "model", "device", "refiner"))
