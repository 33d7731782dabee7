"""Video sets on tiny folders in the published forms, their measures, answers handed in, and the real samples."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskselect.data.frames import PngMasks
from maskselect.data.video import MevisDataset, RefDavis17Dataset, RefYoutubeVosDataset, RevosDataset, VideoDataset
from maskselect.data.video_writer import AnswerWriter
from maskselect.metrics.video import VideoMetrics
from maskselect.ops import rle
from maskselect.structures.video import VideoSample, stacked

SIZE = (6, 8)
FRAMES = ["00000", "00005", "00010"]
FIRST, SECOND = np.zeros((2, 3, *SIZE), bool)
FIRST[0, :2] = FIRST[1, 2:4] = True  # two rows that fall, and are gone in the third frame
SECOND[:, :, 6:] = True
SECOND &= ~FIRST  # hidden by the first
VOIDS = np.zeros((3, *SIZE), bool)
VOIDS[2, 5, :2] = True
PALETTE = [0, 0, 0, 255, 0, 0, 0, 255, 0] + [7] * 759


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def frames(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FRAMES:
        Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(folder / f"{name}.jpg")


def index_pngs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, first, second, void in zip(FRAMES, FIRST, SECOND, VOIDS, strict=True):
        picture = Image.fromarray((first + 2 * second + 255 * void).astype(np.uint8), mode="P")
        picture.putpalette(PALETTE)
        picture.save(folder / f"{name}.png")


def video(expressions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"expressions": expressions, "frames": FRAMES} | more


def youtube(root: Path, **train: Any) -> Path:
    told = {"0": {"exp": "the first ", "obj_id": "1"}, "1": {"exp": "the second", "obj_id": "2"}}
    content = {"train": {"a": video(told) | train}, "valid": {"b": video({"0": {"exp": "it"}}), "c": video(told)}}
    for split, videos in (content | {"test": {"c": video(told)}}).items():
        write(root / f"meta_expressions/{split}/meta_expressions.json", {"videos": videos})
        for name in videos:
            frames(root / split / "JPEGImages" / name)
    index_pngs(root / "train/Annotations/a")
    return root


def davis(root: Path) -> Path:
    texts = {str(k): {"exp": f"object {k // 4 + 1} by {k % 4}"} for k in (10, 11, *range(8))}
    texts |= {key: value | {"obj_id": str(int(key) // 4 + 1)} for key, value in texts.items() if int(key) < 4}
    del texts["10"], texts["11"]
    write(root / "meta_expressions/valid/meta_expressions.json", {"videos": {"a": video(texts)}})
    frames(root / "valid/JPEGImages/a")
    index_pngs(root / "valid/Annotations/a")
    return root


def codes(masks: np.ndarray) -> list[Any]:
    return [rle.encode(mask[None])[0] if mask.any() else None for mask in masks]


ASKED: dict[str, Any] = {
    "0": {"exp": "the first", "obj_id": [1], "anno_id": [70], "type_id": 0},
    "1": {"exp": "why both?", "obj_id": [1, 2], "anno_id": [70, 71], "type_id": 1},
    "2": {"exp": "a cat", "obj_id": [], "anno_id": [], "type_id": 2},
}


def revos(root: Path, masks: Any = None, **asked: Any) -> Path:
    size = {"height": SIZE[0], "width": SIZE[1], "vid_id": 1}
    write(root / "meta_expressions_valid_.json", {"videos": {"x/a": video(ASKED | asked, **size)}})
    write(root / "mask_dict.json", masks or {"70": codes(FIRST), "71": codes(SECOND)})
    whole = {"masks_rle": codes(FIRST | SECOND), "foreground_ratio": [0.5] * 3}
    write(root / "mask_dict_foreground.json", {"x/a": whole})
    frames(root / "JPEGImages/x/a")
    return root


def mevis(root: Path, split: str = "valid_u") -> Path:
    asked = {key: {k: v for k, v in told.items() if k != "type_id"} for key, told in ASKED.items()}
    if split == "valid":
        asked = {key: {"exp": told["exp"]} for key, told in asked.items()}
    write(root / split / "meta_expressions.json", {"videos": {"a": video(asked)}})
    if split != "valid":
        write(root / split / "mask_dict.json", {"70": codes(FIRST), "71": codes(SECOND)})
    frames(root / split / "JPEGImages/a")
    return root


def same(sample: VideoSample, wanted: np.ndarray) -> bool:
    assert sample.masks is not None
    return bool(np.array_equal(stacked(sample.masks).numpy(), wanted))


def test_ref_youtube_vos(tmp_path: Path) -> None:
    data = RefYoutubeVosDataset(youtube(tmp_path / "ref_youtube_vos").parent, "train")
    first, second = data
    assert (first.video_id, first.sample_id, first.prompt) == ("a", "a/0", "the first")
    assert (first.size, first.frame_names, first.object_ids) == (SIZE, tuple(FRAMES), ("1",))
    assert first.frames[1] == tmp_path / "ref_youtube_vos/train/JPEGImages/a/00005.jpg"
    assert same(first, FIRST) and same(second, SECOND)
    assert data.video_ids() == ["a", "a"]
    assert same(pickle.loads(pickle.dumps(data))[1], SECOND)


def test_videos_of_test_are_not_in_valid(tmp_path: Path) -> None:
    root = youtube(tmp_path)
    assert [s.sample_id for s in RefYoutubeVosDataset(root, "valid")] == ["b/0"]
    assert [s.sample_id for s in RefYoutubeVosDataset(root, "test")] == ["c/0", "c/1"]
    assert RefYoutubeVosDataset(root, "valid")[0].masks is None


def test_ref_davis(tmp_path: Path) -> None:
    data = RefDavis17Dataset(davis(tmp_path / "davis17").parent)
    assert [s.prompt for s in data] == [f"object {n} by {a}" for n in (1, 2) for a in range(4)]
    assert all(same(s, FIRST if s.object_ids == ("1",) else SECOND) for s in data)
    assert data[0].void is not None and np.array_equal(stacked(data[0].void).numpy(), VOIDS)
    run = RefDavis17Dataset(tmp_path, annotator=2)
    assert [(s.prompt, s.sample_id) for s in run] == [("object 1 by 2", "a/2"), ("object 2 by 2", "a/6")]
    with pytest.raises(ValueError, match="annotator is 4; expected 0 to 3"):
        RefDavis17Dataset(tmp_path, annotator=4)


def test_revos(tmp_path: Path) -> None:
    data = RevosDataset(revos(tmp_path / "ReVOS").parent)
    assert [(s.sample_id, s.kind, s.object_ids) for s in data] == [
        ("x/a/0", "referring", ("70",)),
        ("x/a/1", "reasoning", ("70", "71")),
        ("x/a/2", "none", ()),
    ]
    assert same(data[0], FIRST) and same(data[1], FIRST | SECOND) and same(data[2], np.zeros_like(FIRST))
    assert data[0].foreground is not None
    assert np.array_equal(stacked(data[0].foreground).numpy(), FIRST | SECOND)
    copy = pickle.loads(pickle.dumps(data[1]))
    assert same(copy, FIRST | SECOND)
    (tmp_path / "ReVOS/mask_dict_foreground.json").unlink()
    united = RevosDataset(tmp_path)[0].foreground
    assert united is not None and np.array_equal(stacked(united).numpy(), FIRST | SECOND)


def test_mevis(tmp_path: Path) -> None:
    data = MevisDataset(mevis(tmp_path / "MeViS").parent)
    assert same(data[1], FIRST | SECOND) and data[0].size == SIZE and data[0].kind == ""
    hidden = MevisDataset(mevis(tmp_path, "valid"), "valid")
    assert [s.prompt for s in hidden] == ["the first", "why both?", "a cat"] and hidden[0].masks is None


def by_expression(data: VideoDataset, protocol: str, perfect: bool) -> dict[str, float | None]:
    groups = {"referring": 0, "reasoning": 1, "none": 2, "": 0}
    metrics = VideoMetrics(protocol=protocol)
    for sample in data:
        assert sample.masks is not None
        truth = stacked(sample.masks)
        answer = truth if perfect else torch.zeros_like(truth)
        foreground = None if sample.foreground is None else stacked(sample.foreground)
        metrics.update(answer, truth, group=groups[sample.kind], foreground=foreground)
    return metrics.report()


@pytest.mark.parametrize(
    ("make", "protocol"),
    [
        (lambda root: RefYoutubeVosDataset(youtube(root), "train"), "ref-youtube-vos"),
        (lambda root: RefDavis17Dataset(davis(root)), "davis-expression"),
        (lambda root: RevosDataset(revos(root)), "revos"),
        (lambda root: MevisDataset(mevis(root)), "mevis"),
    ],
)
def test_an_oracle_reaches_100_and_an_empty_answer_what_is_empty(tmp_path: Path, make: Any, protocol: str) -> None:
    data = make(tmp_path)
    assert by_expression(data, protocol, True)["J&F"] == 100
    empty = by_expression(data, protocol, False)
    assert empty["J"] is not None and empty["J"] < 67  # frames in which nothing is to be seen are right
    if protocol == "revos":
        # The first is gone in one of three frames; both together never are. Empty answers have no wrong pixel.
        assert (empty["J referring"], empty["J reasoning"], empty["R"]) == (33.33, 0.0, 100.0)


def test_the_classic_davis_protocol(tmp_path: Path) -> None:
    root, metrics = davis(tmp_path), VideoMetrics(protocol="davis")
    for run in range(4):
        samples = list(RefDavis17Dataset(root, annotator=run))
        truth = torch.stack([stacked(s.masks) for s in samples if s.masks is not None])
        assert samples[0].void is not None
        metrics.update(truth.flip(0), truth, group=run, void=stacked(samples[0].void))
    assert metrics.report()["J&F"] == 100


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"0": {"exp": "", "anno_id": [70]}}, "exp is ''; expected a text"),
        ({"0": {"exp": "x", "anno_id": 70}}, "anno_id is '70'; expected a list"),
        ({"0": {"exp": "x", "anno_id": [7]}}, "annotation 7 is not in"),
        ({"0": {"exp": "x", "anno_id": [70], "type_id": 5}}, "type_id is '5'; expected 0, 1 or 2"),
        ({"0": 3}, "video 'x/a', expression '0'"),
    ],
)
def test_expressions_that_cannot_be(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    data = RevosDataset(revos(tmp_path, **change))
    with pytest.raises(ValueError) as caught:
        data[0]
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"70": codes(FIRST)[:2], "71": []}, "has 2 masks; expected one for each of 3 frames"),
        ({"70": codes(FIRST[:, :3]), "71": []}, "frame 0, is of size [3, 8]; expected [6, 8]"),
        ({"70": [{"size": [6, 8], "counts": "zz"}] * 3, "71": []}, "frame 0: "),
        ({"70": 3, "71": []}, "has '3'; expected one for each"),
    ],
)
def test_masks_that_cannot_be(tmp_path: Path, masks: dict[str, Any], told: str) -> None:
    sample = RevosDataset(revos(tmp_path, masks))[0]
    assert sample.masks is not None
    with pytest.raises(ValueError) as caught:
        sample.masks[0]
    assert told in str(caught.value) and "annotation 70 in" in str(caught.value)


def test_frames_and_index_pngs_that_cannot_be(tmp_path: Path) -> None:
    root = youtube(tmp_path)
    sample = RefYoutubeVosDataset(root, "train")[0]
    file = root / "train/Annotations/a/00000.png"
    assert sample.masks is not None
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"00000\.png is \[6, 8, 3\] uint8; expected indices of \[6, 8\]"):
        sample.masks[0]
    file.write_bytes(b"\x89PNG no")
    with pytest.raises(ValueError, match="is damaged"):
        sample.masks[0]
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"00000\.png does not exist"):
        sample.masks[0]
    (root / "train/JPEGImages/a/00005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"frame .*00005\.jpg is not there"):
        RefYoutubeVosDataset(root, "train")[0]


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    root = youtube(tmp_path, frames=["../../../secret"])
    with pytest.raises(ValueError, match="leads out of its folder"):
        RefYoutubeVosDataset(root, "train")[0]


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        (RefYoutubeVosDataset, r"no expressions of valid in .*youtube-vos\.org"),
        (RefDavis17Dataset, r"no expressions of valid in .*ReferFormer"),
        (RevosDataset, r"no ReVOS file of valid in .*meta_expressions_valid_\.json.*ReVOS-api"),
        (MevisDataset, r"no MeViS file of valid_u in .*MeViS"),
    ],
)
def test_missing_layout(tmp_path: Path, reader: Any, told: str) -> None:
    with pytest.raises(FileNotFoundError, match=told):
        reader(tmp_path)
    write(tmp_path / "meta_expressions_valid_.json", "{")
    write(tmp_path / "mask_dict.json", "{}")
    if reader is RevosDataset:
        with pytest.raises(ValueError, match=r"meta_expressions_valid_\.json is not valid JSON"):
            reader(tmp_path)


def test_answers_are_handed_in(tmp_path: Path) -> None:
    sample = RefYoutubeVosDataset(youtube(tmp_path / "data"), "train")[0]
    writer = AnswerWriter(tmp_path / "answers")
    assert not writer.is_done(sample)
    folder = writer.write(sample, FIRST)
    assert writer.is_done(sample) and folder == tmp_path / "answers/Annotations/a/0"
    with Image.open(folder / "00005.png") as picture:
        assert np.array_equal(np.array(picture), FIRST[1] * np.uint8(255))
    archive = writer.pack([sample], tmp_path / "answers.zip")
    with zipfile.ZipFile(archive) as zipped:
        assert sorted(zipped.namelist()) == [f"Annotations/a/0/{name}.png" for name in FRAMES]
    (folder / "00005.png").unlink()
    assert not writer.is_done(sample)
    with pytest.raises(FileNotFoundError, match=r"00005\.png is not there; every expression must be answered"):
        writer.pack([sample], tmp_path / "again.zip")
    assert not (tmp_path / "again.zip").exists()
    with pytest.raises(ValueError, match=r"answer to a/0 is \[2, 6, 8\] bool; expected \[3, 6, 8\] bool"):
        writer.write(sample, FIRST[:2])
    with pytest.raises(ValueError, match=r"is a Tensor; expected \[3, 6, 8\] bool, of numpy"):
        writer.write(sample, torch.from_numpy(FIRST))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("video_id", "key"),
    [("a", "../../../mine"), ("a", ".."), ("a", "."), ("a", "0/1"), ("..", "mine"), (".", "0"), ("a", "/mine")],
)
def test_answers_stay_in_their_folder(tmp_path: Path, video_id: str, key: str) -> None:
    mine = tmp_path / "mine/keep.txt"
    write(mine, "mine")
    sample = RefYoutubeVosDataset(youtube(tmp_path / "data"), "train")[0]
    writer = AnswerWriter(tmp_path / "answers")
    kept = writer.write(sample, FIRST)
    with pytest.raises(ValueError, match=r"leads out of its folder|cannot name a folder") as caught:
        writer.write(replace(sample, video_id=video_id, sample_id=f"{video_id}/{key}"), FIRST)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"leads out of its folder|not directly in its folder"):
        writer.write(replace(sample, frame_names=("../x", *sample.frame_names[1:])), FIRST)
    assert mine.read_text() == "mine" and len(list(kept.iterdir())) == 3
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == ["Annotations"]


def test_real_expressions(shared_data: Path, tmp_path: Path) -> None:
    told = json.loads((shared_data / "ref_youtube_vos_valid/meta_expressions.json").read_text())["videos"]
    tested = dict(list(told.items())[202:])  # which they are is not in the sample; how many is published
    write(tmp_path / "meta_expressions/valid/meta_expressions.json", {"videos": told})
    write(tmp_path / "meta_expressions/test/meta_expressions.json", {"videos": tested})
    valid, test = (RefYoutubeVosDataset(tmp_path, split) for split in ("valid", "test"))
    assert (len(set(valid.video_ids())), len(set(test.video_ids()))) == (202, 305)
    assert len(valid) + len(test) == 2096
    video_id = valid.video_ids()[0]
    frame_names = told[video_id]["frames"]
    (tmp_path / "valid/JPEGImages" / video_id).mkdir(parents=True)
    for name in frame_names:
        Image.new("RGB", (40, 30)).save(tmp_path / "valid/JPEGImages" / video_id / f"{name}.jpg")
    sample = valid[0]
    assert sample.prompt == told[video_id]["expressions"]["0"]["exp"] and sample.frame_names == tuple(frame_names)
    assert sample.size == (30, 40)


def test_real_clips(shared_data: Path) -> None:
    folder = shared_data / "cutie_examples/examples/masks/judo"
    files = tuple(sorted(folder.glob("*.png")))
    assert len(files) == 4
    for file in files:
        with Image.open(file) as picture:
            values = np.array(picture)
        objects = sorted(set(values.ravel().tolist()) - {0})
        everything = PngMasks((file,), tuple(objects), values.shape)[0]
        assert objects and np.array_equal(everything, values > 0)
        parts = [PngMasks((file,), (number,), values.shape)[0] for number in objects]
        assert sum(int(part.sum()) for part in parts) == int(everything.sum())
    # A real quirk: the masks of this clip are not all of one width.
    with pytest.raises(ValueError, match=r"is \[480, 853\] uint8; expected indices of \[480, 854\]"):
        PngMasks(files, (1,), (480, 854))[1]


def test_real_masklets(shared_data: Path) -> None:
    told = json.loads((shared_data / "sav_example/sav_000001_manual.json").read_text())
    size = (int(told["video_height"]), int(told["video_width"]))
    for frame in told["masklet"][::30]:
        for code, share in zip(frame, told["masklet_size_rel"], strict=True):
            mask = rle.decode(code)
            assert mask.shape == size and 0 <= mask.mean() <= 1 and isinstance(share, float)
