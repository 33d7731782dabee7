"""Push and pull, against a stand-in of the hub that runs in a thread, and against a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import maskselect
from maskselect import cli
from maskselect.backends.checkpoints import change_card, write_checkpoint
from maskselect.backends.hub import Repository
from tests.hub_stand_in import READER, Hub, serving
from tests.hub_world import config, scores, write_base, write_ras, write_report

NAME, LINK = "org/tiny", "hf://org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub without repositories, an empty cache, and a token that may write."""
    with serving(monkeypatch, tmp_path / "cache") as made:
        yield made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny RAS, with other files in its folder that are nobody's business."""
    file = write_ras(tmp_path_factory.mktemp("run"))
    (file.parent / "last.ckpt").write_bytes(b"state of training")
    return file


def load(name: object) -> Any:
    return maskselect.load(str(name), device="cpu")


def refused(kind: type[Exception], said: str, *arguments: Any, **settings: Any) -> None:
    """A push ends with one sentence of that kind."""
    with pytest.raises(kind, match=said) as caught:
        maskselect.push_to_hub(*arguments, **settings)
    assert "\n" not in str(caught.value)


# There and back.
def test_what_is_pushed_answers_as_before(hub: Hub, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = maskselect.push_to_hub(checkpoint, NAME)
    repo = hub.repos[NAME]
    assert page == f"{hub.url}/{NAME}/commit/{repo.branches['main']}"
    assert repo.messages == ["initial commit", "Upload tiny with maskselect"]  # one commit: all or nothing
    assert sorted(hub.files(NAME)) == ["README.md", "tiny.json", "tiny.safetensors"]
    assert hub.files(NAME)["tiny.safetensors"] == checkpoint.read_bytes() == next(iter(hub.lfs.values()))
    pulled, own = load(LINK), load(checkpoint)
    np.testing.assert_array_equal(scores(pulled), scores(own))
    assert (pulled.name, pulled.threshold, pulled.fingerprint) == ("tiny", 0.25, own.fingerprint)
    assert hub.downloads() == sorted(["tiny.json", *hub.lfs])  # no README, and nothing twice
    assert capsys.readouterr() == ("", "")  # bars are for terminals


def test_a_small_file_goes_with_the_commit(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.large = ()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    maskselect.push_to_hub(checkpoint, NAME)
    np.testing.assert_array_equal(scores(load(LINK)), scores(load(checkpoint)))
    assert not hub.lfs


def test_nothing_but_what_is_needed_is_fetched_and_then_no_network_is(hub: Hub, checkpoint: Path) -> None:
    files = {name: (checkpoint.parent / name).read_bytes() for name in ("tiny.json", "tiny.safetensors")}
    others = {"notes.json": b'{"a": 1}', "onnx/tiny.safetensors": b"1", "onnx/tiny.json": b"{}", "run.log": b"2"}
    hub.create(NAME, files | others)
    first = load(LINK)
    assert hub.downloads() == ["notes.json", "tiny.json", "tiny.safetensors"]  # which JSON is the card, none knows
    hub.close()
    np.testing.assert_array_equal(scores(load(LINK)), scores(first))
    with pytest.raises(FileNotFoundError, match=r"hf://org/other could not be fetched: the hub cannot be reached"):
        load("hf://org/other")


def test_offline_by_setting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set, and the cache does not hold it"):
        load(LINK)


def test_branches_are_revisions(hub: Hub, tmp_path: Path) -> None:
    file = write_ras(tmp_path)
    maskselect.push_to_hub(file, NAME)
    change_card(file, {"threshold": 0.75})
    maskselect.push_to_hub(file, f"{LINK}@sharp")
    maskselect.push_to_hub(file, NAME, revision="sharp")  # nothing new, and the branch is there
    assert [load(f"{LINK}{at}").threshold for at in ("", "@sharp", f"@{hub.repos[NAME].branches['main']}")] == [
        0.25,
        0.75,
        0.25,
    ]
    assert f'maskselect.load("{LINK}@sharp")' in hub.files(NAME, "sharp")["README.md"].decode()
    with pytest.raises(FileNotFoundError, match="hf://org/tiny@blunt could not be fetched: it has no such revision"):
        load(f"{LINK}@blunt")


def test_weights_beside_the_checkpoint_come_along(hub: Hub, tmp_path: Path) -> None:
    base = write_base(tmp_path / "parts")
    (tmp_path / "parts" / ".cache").mkdir()
    (tmp_path / "parts" / ".cache" / "x").write_text("not this")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "merges.txt").write_text("a b")
    lmm = {"base": "{beside}/parts/" + base.name}
    file = write_ras(tmp_path, config=config(**lmm), extra="kept")
    maskselect.push_to_hub(file, NAME)
    assert sorted(hub.files(NAME)) == [
        "README.md",
        "parts/llava.json",
        "parts/llava.safetensors",
        "tiny.json",
        "tiny.safetensors",
    ]
    np.testing.assert_array_equal(scores(load(LINK)), scores(load(file)))
    readme = hub.files(NAME)["README.md"].decode()
    assert "beside the checkpoint, which needs them: `parts/llava.safetensors`, `parts/llava.json`" in readme


def test_a_folder_beside_and_one_at_the_top(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "merges.txt").write_text("a b")
    base = write_base(tmp_path)
    file = write_ras(tmp_path, config=config(base="{beside}/" + base.name, system_prompt="{beside}/words"))
    maskselect.push_to_hub(file, NAME)
    assert {"words/merges.txt", "llava.json", "llava.safetensors"} < set(hub.files(NAME))
    assert load(LINK).name == "tiny"  # of two checkpoints at the top the one that needs the other
    assert "words/merges.txt" in hub.downloads()


# A folder instead.
def test_a_folder_gets_what_would_be_uploaded(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "release"
    assert maskselect.push_to_hub(checkpoint, LINK, folder=folder) == str(folder)
    maskselect.push_to_hub(checkpoint, LINK)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == hub.files(NAME)
    np.testing.assert_array_equal(scores(load(folder)), scores(load(checkpoint)))
    refused(ValueError, "release is there already", checkpoint, LINK, folder=folder)
    refused(ValueError, "private has no effect", checkpoint, LINK, folder=tmp_path / "b", private=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["release"]


def test_a_folder_is_whole_or_not_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("shutil.copyfile", fails)
    with pytest.raises(OSError, match="No space left"):
        maskselect.push_to_hub(checkpoint, LINK, folder=tmp_path / "release")
    assert list(tmp_path.iterdir()) == []


def test_the_verb(hub: Hub, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path / "report.json", checkpoint)
    words = ["push", str(checkpoint), LINK, "--report", str(tmp_path / "report.json"), "--license", "mit"]
    assert cli.main([*words, "--folder", str(tmp_path / "out")], prog="maskselect") == 0
    assert (tmp_path / "out" / "README.md").read_text().count("license: mit") == 1 and not hub.repos
    assert cli.main([*words, "--private"], prog="maskselect") == 0
    assert hub.repos[NAME].private
    assert capsys.readouterr().out.splitlines() == [
        f"{checkpoint} -> {tmp_path / 'out'}",
        f"{checkpoint} -> {hub.url}/{NAME}/commit/{hub.repos[NAME].branches['main']}",
    ]
    assert cli.main(["push", str(checkpoint), "tiny"], prog="maskselect") == 2
    assert capsys.readouterr().err == (
        "maskselect push: error: 'tiny' names no repository; expected hf://org/name or hf://org/name@revision\n"
    )


# Pulls that are refused.
@pytest.mark.parametrize("name", ["hf://tiny", "hf://a/b/c", "hf://a/b@", "hf://", "hf://a b/c", "hf://-a/b"])
def test_names_of_no_repository(name: str) -> None:
    with pytest.raises(ValueError, match="names no repository; expected hf://org/name or hf://org/name@revision"):
        Repository.parse(name)


@pytest.mark.parametrize(
    ("files", "kind", "said"),
    [
        (
            {"tiny.json": b'{"system": "ras", ', "tiny.safetensors": b""},
            ValueError,
            "card tiny.json of hf://org/tiny is",
        ),
        ({"tiny.json": b"\xff\xfe\x00", "tiny.safetensors": b""}, ValueError, "is not valid JSON"),
        ({"config.json": b'{"model_type": "llava"}', "model.safetensors": b""}, FileNotFoundError, "no checkpoint of"),
        ({"README.md": b"# nothing"}, FileNotFoundError, "expected NAME.safetensors with its card NAME.json"),
        ({"tiny.json": b'{"system": "ras", "config": {}}'}, FileNotFoundError, "has a card tiny.json but no tiny.safe"),
        (
            {"a.json": b'{"system": "ras"}', "b.json": b'{"system": "ras"}', "a.safetensors": b""},
            ValueError,
            "holds the checkpoints a, b; expected one",
        ),
        (
            {"sam.json": b'{"system": "sam"}', "sam.safetensors": b""},
            ValueError,
            "is of system 'sam'; expected one that",
        ),
        (
            {"tiny.json": b'{"system": "ras", "config": {}}', "tiny.safetensors": b"cut"},
            ValueError,
            "expected one that selects masks",
        ),
    ],
)
def test_repositories_without_a_checkpoint(hub: Hub, files: dict[str, bytes], kind: type[Exception], said: str) -> None:
    hub.create(NAME, files)
    with pytest.raises(kind, match=said) as caught:
        load(LINK)
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_off(hub: Hub, checkpoint: Path) -> None:
    card = checkpoint.with_suffix(".json").read_bytes()
    hub.create(NAME, {"tiny.json": card, "tiny.safetensors": checkpoint.read_bytes()[:2000]})
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        load(LINK)


@pytest.mark.parametrize("token", [None, READER])
def test_repositories_that_are_not_to_be_had(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    hub.create("org/gated").gated = True
    hub.create("org/private", private=True)
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(FileNotFoundError, match="hf://org/gated could not be fetched: it is gated; ask for access"):
        load("hf://org/gated")
    absent = "there is no such repository, or it is private; then log in with: hf auth login; by hand: hf download org/"
    for name in ("org/absent", "org/private") if token is None else ("org/absent",):
        with pytest.raises(FileNotFoundError, match=absent) as caught:
            load(f"hf://{name}")
        assert "\n" not in str(caught.value)


# Pushes that are refused, with nothing uploaded.
def test_who_may_not_write(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "hf://org/tiny could not be written to: the hub does not let you write to it"
    monkeypatch.setenv("HF_TOKEN", READER)
    refused(PermissionError, rf"{told} \(status 403\)", checkpoint, NAME)
    hub.create(NAME)
    refused(PermissionError, rf"{told} \(status 403\)", checkpoint, NAME)
    monkeypatch.delenv("HF_TOKEN")
    refused(PermissionError, rf"{told} \(status 401\); log in with a token that may", checkpoint, NAME)
    assert hub.files(NAME) == {}
    hub.close()
    refused(OSError, r"could not be written to: the hub cannot be reached \(ConnectError\)$", checkpoint, NAME)


def test_repositories_that_do_not_fit(hub: Hub, checkpoint: Path) -> None:
    hub.create("org/public")
    refused(ValueError, "org/public is there already and is public", checkpoint, "org/public", private=True)
    hub.create(NAME, {"model.safetensors": b"another's"})
    refused(ValueError, "hf://org/tiny holds model.safetensors already", checkpoint, NAME)
    told = 'the hub refused the upload to hf://org/new: "license" must be one of'
    refused(ValueError, told, checkpoint, "org/new", license="nonsense")
    assert hub.files("org/public") == {} and list(hub.files(NAME)) == ["model.safetensors"]
    assert "org/new" not in hub.repos


def test_reports_of_something_else(checkpoint: Path, tmp_path: Path) -> None:
    other = write_ras(tmp_path / "other", threshold=0.5)
    file = tmp_path / "report.json"
    report = write_report(file, other)
    said = f"report {file} is of the model {other}, which is not {checkpoint} as it is now"
    refused(ValueError, said, checkpoint, NAME, report=file)
    file.with_suffix(".samples.jsonl").unlink()
    refused(ValueError, said, checkpoint, NAME, report=file)  # the file that it names is still there
    for named, fits in (
        ("gone/tiny.safetensors", True),
        ("gone/b.safetensors", False),
        (LINK, True),
        ("hf://a/b", False),
    ):
        file.write_text(json.dumps(report | {"model": named}))
        if fits:
            assert maskselect.push_to_hub(checkpoint, NAME, report=file, folder=tmp_path / named.replace("/", "_"))
        else:
            refused(ValueError, f"is of the model {named}", checkpoint, NAME, report=file)
    file.write_text(json.dumps(report | {"model": LINK}))
    refused(ValueError, "are of the same samples", checkpoint, NAME, report=[file, file])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"dataset"', "is not valid JSON"),
        ("[]", "has no dataset"),
        ('{"dataset": "scenes", "split": "test"}', "has no model"),
        (
            '{"dataset": "a", "split": "b", "model": "c", "samples": 1, "images": 1, "metrics": {}}',
            "has no metrics of 'overall'",
        ),
    ],
)
def test_files_that_are_no_reports(checkpoint: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.json").write_text(text)
    refused(ValueError, rf"r\.json {said}", checkpoint, NAME, report=tmp_path / "r.json")
    refused(FileNotFoundError, "gone.json is not there", checkpoint, NAME, report=tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("base", "kind", "said"),
    [
        ("/data/llava.safetensors", ValueError, "names /data/llava.safetensors, which is on this machine alone"),
        ("runs/llava/llava.safetensors", ValueError, "named {beside}/llava.safetensors"),
        ("~/llava", ValueError, "on this machine alone"),
        ("{beside}/llava", FileNotFoundError, "llava is not there, which the card of"),
        ("{beside}/../llava", ValueError, "expected a file or folder in its own folder"),
    ],
)
def test_weights_that_others_cannot_have(hub: Hub, tmp_path: Path, base: str, kind: type[Exception], said: str) -> None:
    refused(kind, said, write_ras(tmp_path, config=config(base=base)), NAME)
    assert NAME not in hub.repos


def test_checkpoints_that_cannot_be_loaded(tmp_path: Path, checkpoint: Path) -> None:
    refused(ValueError, "of stage 1, which captions", "captioner", NAME)
    refused(ValueError, "is of system 'sam'; expected one that selects masks", "sam", NAME)
    refused(FileNotFoundError, "not found", "no-such-model", NAME)
    write_checkpoint(tmp_path / "a.safetensors", {}, {"system": "ras"})
    refused(ValueError, "expected one that selects masks", tmp_path / "a.safetensors", NAME)
    file = tmp_path / "tiny.safetensors"
    file.write_bytes(checkpoint.read_bytes()[:3000])
    file.with_suffix(".json").write_bytes(checkpoint.with_suffix(".json").read_bytes())
    refused(ValueError, "truncated or not a safetensors file", file, NAME)
    file.with_suffix(".json").write_text("{")
    refused(ValueError, "is not valid JSON", file, NAME)
