"""Named models of public weights, served by a stand-in of the hub: tiny random weights in the true file formats."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

import maskselect
from maskselect import cli
from maskselect.backends import hub as client
from maskselect.backends.building import find_class
from maskselect.backends.config_tree import walk
from maskselect.reports.page import draw_page
from maskselect.structures.sample import Prompt, Sample
from maskselect.systems import named_models
from tests.hub_stand_in import READER, Hub, serving
from tests.systems.tiny_public import write_qwen2_vl, write_sam2, write_siglip

README = b"---\nlicense: apache-2.0\n---\n# A model\n"
EXTRA = {"README.md": README, "pytorch_model.bin": b"not this", "onnx/model.json": b"{}", ".gitattributes": b""}
SAM, SIGLIP, QWEN = "facebook/sam2.1-hiera-tiny", "google/siglip2-base-patch16-224", "Qwen/Qwen2-VL-2B-Instruct"
IMAGE = np.kron(np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of each repository."""
    folders = {
        SAM: write_sam2(tmp_path_factory.mktemp("sam2")),
        SIGLIP: write_siglip(tmp_path_factory.mktemp("siglip")),
        QWEN: write_qwen2_vl(tmp_path_factory.mktemp("qwen")),
    }
    return {
        name: {path.name: path.read_bytes() for path in sorted(folder.iterdir())} for name, folder in folders.items()
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub with the public models, at the commits that the configs name, too."""
    with serving(monkeypatch, tmp_path / "cache") as made:
        pinned = dict(link.removeprefix("hf://").split("@") for link in named_models.read("photos-small").links)
        for name, content in files.items():
            repo = made.create(name, content | EXTRA)
            if name in pinned:
                repo.commits[pinned[name]] = repo.commits[repo.branches["main"]]
                repo.branches["main"] = repo.commit("main", {"README.md": b"moved on"}, "later")
        yield made


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """photos-small with a proposer that keeps what random weights find."""
    return opened("photos-small", tmp_path)


def opened(name: str, folder: Path, **changes: Any) -> Path:
    config = yaml.safe_load((named_models.FOLDER / f"{name}.yaml").read_text())
    settings = dict(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, points_per_side=3)
    arguments = config["system"]["init_args"]
    arguments["proposer"]["init_args"] |= settings | {"max_candidates": 5}
    arguments |= changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def scores(model: Any) -> np.ndarray:
    found = np.asarray(model.select(IMAGE, "the dogs", threshold=0.0).candidate_scores)
    assert len(found) > 1
    return found


@pytest.mark.parametrize("name", ["photos-fast", "photos-small", "photos-base"])
def test_shipped_configs_fit_their_classes(name: str) -> None:
    assert name in named_models.names() and named_models.is_named(name) and not named_models.is_named("ras")
    model = named_models.read(name)
    assert (model.name, model.threshold) == (name, 0.5)
    for node in walk(model.system):
        inspect.signature(find_class(node.path)).bind(**node.arguments)
    head = (named_models.FOLDER / f"{name}.yaml").read_text()
    assert "Apache-2.0" in head and "No accuracy was measured" in head and f"maskselect download {name}" in head
    assert len(model.links) == (2 if name == "photos-fast" else 3)


def test_the_first_use_announces_and_downloads_and_the_second_needs_no_network(
    hub: Hub, files: dict[str, dict[str, bytes]], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = maskselect.load(small, device="cpu")
    said = capsys.readouterr().err.splitlines()
    size = {
        n: sum(len(d) for p, d in f.items() if p.endswith((".json", ".txt", ".safetensors"))) for n, f in files.items()
    }
    assert said[0].startswith("photos-small: downloading 3 public models, ")
    assert f"{named_models.size_of(sum(size.values()))} together, to {constants.HF_HUB_CACHE} (HF_HOME" in said[0]
    assert said[1] == f"  {SAM}, {named_models.size_of(size[SAM])}, licence apache-2.0, commit de431c404385"
    assert f"  {QWEN}, {named_models.size_of(size[QWEN])}, licence apache-2.0, commit 895c3a49bc3f" in said
    assert not {"README.md", "pytorch_model.bin", "onnx/model.json"} & set(hub.downloads())
    commits = [part.removeprefix("hf://").split("@") for part in first.facts().parts]
    assert commits == [
        [SAM, "de431c4043854a71d8101e17995dfe596bf101a5"],
        [SIGLIP, "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"],
        [QWEN, "895c3a49bc3fa70a340399125c650a463535e71c"],
    ]
    asked = len(hub.asked)
    second = maskselect.load(small, device="cpu")
    again = capsys.readouterr().err
    assert len(hub.asked) == asked and "downloading" not in again and "Loading weights" not in again
    hub.close()
    np.testing.assert_array_equal(scores(second), scores(first))
    assert first.fingerprint == second.fingerprint != ""


def test_results_and_reports_state_the_commits(hub: Hub, photo: Path, tmp_path: Path) -> None:
    model = maskselect.load(opened("photos-fast", tmp_path), device="cpu")
    group = model.select(photo, "the dogs")
    stated = list(model.facts().parts)
    assert group.to_json()["parts"] == stated and stated[1].endswith("@75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2")
    pool = model.select_many(IMAGE, ["the dogs"], keep_pool=True)[0].pool
    assert pool is not None and len(pool) > 0
    sample = Sample(IMAGE, "a", "a.1", Prompt("the dogs", pool.masks[:0]), pool.masks, (0,))
    report = maskselect.evaluate(model, [sample])
    assert report["parts"] == stated and stated[0] in draw_page(report, [], {})
    words = ["predict", "--model", "photos-fast", "--image", str(photo), "--prompt", "<mask-ref>"]
    options = ["--reference", "box:10,10,90,70", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main([*words, *options], prog="maskselect") == 0
    written = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert written["parts"] == stated and written["model"] == "photos-fast" and written["candidates"] == 0
    ras = maskselect.load("ras", device="cpu")
    assert ras.facts().parts == () and "parts" not in ras.select(photo, "stars").to_json()


def test_a_threshold_cannot_be_written_into_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--model", "photos-fast", "--dataset", "scenes", "--scenes", "1", "--write"]
    assert cli.main(words, prog="maskselect") == 2
    assert "set `threshold` in a config like photos-fast" in capsys.readouterr().err


def test_download_prints_where_everything_is(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["download", "photos-fast"], prog="maskselect") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "photos-fast: downloading 2 public models" in err
    assert lines[1].startswith(f"hf://{SIGLIP}@75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2 -> {constants.HF_HUB_CACHE}")
    assert lines[-1] == "photos-fast is complete; use it with --model photos-fast"
    assert cli.main(["download", "photos-fast"], prog="maskselect") == 0
    assert capsys.readouterr() == (out, "")
    assert cli.main(["download", "photos"], prog="maskselect") == 2
    assert "expected a YAML file or one of photos-base, photos-fast, photos-small" in capsys.readouterr().err


def test_a_broken_connection_goes_on_where_it_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # 10 MB, so that tiny files would begin again
    hub.breaks = ["model.safetensors"]
    folders = named_models.fetch(named_models.read("photos-fast"))
    assert hub.breaks == [] and len(hub.ranges) == 1 and int(hub.ranges[0][6:-1]) > 0
    for link, folder in folders.items():
        name = link.removeprefix("hf://").partition("@")[0]
        wanted = next(there for there in hub.repos[name].commits.values() if "model.safetensors" in there)
        assert (folder / "model.safetensors").read_bytes() == wanted["model.safetensors"]


def test_nothing_is_downloaded_where_one_model_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[SIGLIP].gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(FileNotFoundError, match=f"hf://{SIGLIP}@75de2d5.* could not be read: it is gated"):
        named_models.fetch(named_models.read("photos-fast"))
    assert hub.downloads() == []


def test_a_branch_is_that_of_the_first_download(hub: Hub, tmp_path: Path, files: dict[str, dict[str, bytes]]) -> None:
    repo = hub.create("org/siglip", files[SIGLIP])
    config = yaml.safe_load(opened("photos-fast", tmp_path).read_text())
    config["system"]["init_args"]["similarity"]["init_args"]["model"] = "hf://org/siglip"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    first = maskselect.load(path, device="cpu")
    commit = repo.branches["main"]
    assert f"hf://org/siglip@{commit}" in first.facts().parts
    repo.commit("main", {"README.md": b"moved on"}, "later")
    assert maskselect.load(path, device="cpu").facts().parts == first.facts().parts


def test_an_interrupted_download_keeps_complete_files(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = client.fetch

    def interrupted(repository: client.Repository, patterns: Any, excluded: Any) -> Path:
        if repository.name == SIGLIP and "*.safetensors" in patterns:
            raise KeyboardInterrupt
        return fetch(repository, patterns, excluded)

    with monkeypatch.context() as patched:
        patched.setattr(client, "fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            named_models.fetch(named_models.read("photos-fast"))
    before, _ = len(hub.downloads()), capsys.readouterr()
    assert before > 2
    named_models.fetch(named_models.read("photos-fast"))
    assert len(hub.downloads()) == before + 1  # the weights alone
    assert "downloading 1 public model," in capsys.readouterr().err


def test_repositories_of_something_else(hub: Hub, tmp_path: Path) -> None:
    hub.create("org/other", {"config.json": b"{}", "README.md": README})
    path = tmp_path / "mine.yaml"
    path.write_text(
        "system: {class_path: maskselect.systems.zero_shot.ZeroShot, init_args: {similarity: hf://org/other}}"
    )
    with pytest.raises(FileNotFoundError, match=r"hf://org/other: lacks model\.safetensors; expected a model of trans"):
        maskselect.load(path)


def test_without_network_one_sentence_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"model photos-fast needs .* HF_HUB_OFFLINE is set.* download photos-"):
        maskselect.load("photos-fast")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.close()
    with pytest.raises(
        FileNotFoundError, match=f"hf://{SAM}@.* could not be read: the hub cannot be reached .* copy$"
    ) as caught:
        maskselect.load("photos-fast")
    assert "\n" not in str(caught.value)


def test_a_config_of_ones_own(hub: Hub, tmp_path: Path, files: dict[str, dict[str, bytes]]) -> None:
    config = yaml.safe_load(opened("photos-fast", tmp_path).read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config | {"threshold": 0.25}))
    mine = maskselect.load(path, device="cpu")
    assert (mine.name, mine.threshold) == ("mine", 0.25)
    assert mine.fingerprint != maskselect.load("photos-fast", device="cpu").fingerprint
    (local := tmp_path / "siglip").mkdir()
    for name, content in files[SIGLIP].items():
        (local / name).write_bytes(content)
    config["system"]["init_args"]["similarity"]["init_args"]["model"] = str(local)
    path.write_text(yaml.safe_dump(config))
    own = maskselect.load(path, device="cpu")
    assert own.fingerprint == "" and len(own.facts().parts) == 1
    np.testing.assert_allclose(scores(own), scores(mine), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threshold: 0.5", "has no system; expected `system` with class_path"),
        ("threshold: 2\nsystem: {class_path: maskselect.systems.zero_shot.ZeroShot}", "has the threshold 2; expected"),
        ("system: {class_path: os.system}", "is not part of maskselect"),
        ("system: {class_path: maskselect.systems.zero_shot.ZeroShot}", "does not fit its classes"),
        ("system: {class_path: maskselect.proposers.regions.RegionProposer}", "describes a RegionProposer; expected a"),
        ("- a", "holds no settings by name"),
    ],
)
def test_configs_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        maskselect.load(path)
    with pytest.raises(FileNotFoundError, match="does not exist; expected a YAML file or one of photos-base"):
        maskselect.load(tmp_path / "other.yaml")
