"""Referring video segmentation: Ref-YouTube-VOS, Ref-DAVIS17, ReVOS and MeViS.

**Ref-YouTube-VOS** (https://youtube-vos.org/dataset/rvos/, CC BY 4.0): 3,471 training videos. On disk, under the root
or its `ref_youtube_vos/`: `meta_expressions/{split}/meta_expressions.json`, `{split}/JPEGImages/{video}/{frame}.jpg`,
and for train `train/Annotations/{video}/{frame}.png`, whose index is the object's number.
Quirks: the file of valid lists valid and test, 507 videos; valid is the 202 that the file of test does not list. Their
masks are not public: `video_writer.py` writes answers for the server.

**Ref-DAVIS17** as ReferFormer lays it out (https://github.com/wjn922/ReferFormer; texts by
https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/video-segmentation/): 60 videos of
train and 30 of valid. On disk, under the root or its `davis17/` or `ref_davis/`: as above, with `Annotations` for both.
Quirks: four consecutive expressions per object: of the first annotator by the first frame and by the whole video, then
of the second. So expression 4 (n - 1) + a is about object n, and `annotator` 0 to 3 selects one of the four runs that
the classic protocol averages. Index 255 is void.

**ReVOS** (https://github.com/cilinyan/ReVOS-api, CC BY-NC-SA 4.0). On disk, under the root or its `ReVOS/`:
`meta_expressions_{split}_.json` (train, valid; with this underscore), `mask_dict.json`, perhaps
`mask_dict_foreground.json`, frames in `JPEGImages/{video}/` or `{video}/`. Quirks: a video's folder has a slash in its
name; `type_id` 0 is a referring expression, 1 a reasoning one, 2 one without a valid object. Generated clips
(`maskselect make_scenes --clips`) have this format, with the further key `kind` of an expression.

**MeViS** (https://github.com/henghuiding/MeViS, CC BY-NC-SA 4.0): train, valid_u (with masks) and valid. On disk, under
the root or its `MeViS/` or `mevis/`: `{split}/meta_expressions.json`, `{split}/mask_dict.json`,
`{split}/JPEGImages/{video}/`.
"""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskselect.data.coco_file import size_of
from maskselect.data.files import find_one, inside, read_json
from maskselect.data.frames import VOID, PngMasks, RleMasks
from maskselect.data.index import Index, Record, Section, open_index
from maskselect.data.reader import Reader
from maskselect.structures.video import FrameMasks, VideoSample

_KINDS = {0: "referring", 1: "reasoning", 2: "none"}


class VideoDataset(Reader[VideoSample]):
    """Expressions of videos. Masks are read on demand.

    Args:
        file: the expressions.
        split: its split.
        frames: folder of the videos' frames.
    """

    def __init__(self, file: Path, split: str, frames: Path) -> None:
        self.file, self.split, self.frames = file, split, frames
        self._videos = _videos(file)
        self._rows: list[tuple[str, str]] = [(video, key) for video in self._videos for key in self._keys(video)]

    def __getitem__(self, number: int) -> VideoSample:
        """Decode one expression, see `Reader`."""
        video, key = self._rows[number]
        try:
            return self._sample(video, key, self._videos[video])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"video {video!r}, expression {key!r} in {self.file}: {error}") from error

    def video_ids(self) -> list[str]:
        """The video of each sample."""
        return [video for video, _ in self._rows]

    def _keys(self, video: str) -> list[str]:
        """The expressions of a video that become samples."""
        expressions = self._videos[video].get("expressions")
        if not isinstance(expressions, dict):
            raise ValueError(f"video {video!r} in {self.file} has no object of expressions")
        return list(expressions)

    def _sample(self, video: str, key: str, record: Record) -> VideoSample:
        expression = record["expressions"][key]
        names = record.get("frames")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"frames is {str(names)[:40]!r}; expected a list of names")
        text = expression.get("exp")
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"exp is {str(text)[:40]!r}; expected a text")
        folder = self._folder(video)
        frames = tuple(inside(folder, f"{name}.jpg", "frame") for name in names)
        if missing := [frame for frame in frames if not frame.is_file()]:
            raise FileNotFoundError(f"frame {missing[0]} is not there")
        sample = VideoSample(
            video_id=video,
            sample_id=f"{video}/{key}",
            prompt=text.strip(),
            frames=frames,
            frame_names=tuple(names),
            size=size_of(record | {"id": video}, frames[0]),
        )
        return self._with_masks(sample, key, expression)

    def _folder(self, video: str) -> Path:
        """The folder of a video's frames."""
        return inside(self.frames, video, "video")

    @abstractmethod
    def _with_masks(self, sample: VideoSample, key: str, expression: Record) -> VideoSample:
        """The sample with objects and masks, if they are public."""


class RefYoutubeVosDataset(VideoDataset):
    """Samples of Ref-YouTube-VOS. Splits: train, valid or test."""

    def __init__(self, root: str | Path, split: str = "valid") -> None:
        page = "get it from https://youtube-vos.org/dataset/rvos/"
        self.home, file = _meta(Path(root), ("", "ref_youtube_vos/", "ref-youtube-vos/"), split, page)
        super().__init__(file, split, self.home / split / "JPEGImages")
        if split == "valid":
            test = _videos(_meta(self.home, ("",), "test", f"valid's file lists it too; {page}")[1])
            self._rows = [row for row in self._rows if row[0] not in test]

    def _with_masks(self, sample: VideoSample, key: str, expression: Record) -> VideoSample:
        if self.split != "train":
            return sample
        return _by_index(sample, self.home / self.split, _object_number(expression.get("obj_id")))


class RefDavis17Dataset(VideoDataset):
    """Samples of Ref-DAVIS17.

    Args:
        root: see the top of the file.
        split: train or valid.
        annotator: 0 to 3, for the expressions of one run, one per object; None for all.
    """

    def __init__(self, root: str | Path, split: str = "valid", annotator: int | None = None) -> None:
        if annotator not in (None, 0, 1, 2, 3):
            raise ValueError(f"annotator is {annotator}; expected 0 to 3, or None for all")
        self.annotator = annotator
        page = "how to make it: https://github.com/wjn922/ReferFormer/blob/main/docs/data.md"
        self.home, file = _meta(Path(root), ("", "davis17/", "ref_davis/", "ref-davis17/"), split, page)
        super().__init__(file, split, self.home / split / "JPEGImages")

    def _keys(self, video: str) -> list[str]:
        keys = super()._keys(video)
        if wrong := [key for key in keys if not key.isdecimal()]:
            raise ValueError(f"video {video!r} in {self.file} has the expression {wrong[0]!r}; expected whole numbers")
        keys.sort(key=int)
        return [key for key in keys if self.annotator in (None, int(key) % 4)]

    def _with_masks(self, sample: VideoSample, key: str, expression: Record) -> VideoSample:
        number = _object_number(expression.get("obj_id", int(key) // 4 + 1))
        return _by_index(sample, self.home / self.split, number, void=True)


class RevosDataset(VideoDataset):
    """Samples of ReVOS. Splits: train or valid; of generated clips those of `scenes.spec`."""

    def __init__(self, root: str | Path, split: str = "valid") -> None:
        page = "get it from https://github.com/cilinyan/ReVOS-api"
        choices = [f"{home}meta_expressions_{split}_.json" for home in ("", "ReVOS/", "revos/")]
        file = find_one(Path(root), choices, f"ReVOS file of {split}", page)
        self.home = file.parent
        self.masks = _mask_index(find_one(self.home, ["mask_dict.json"], "masks of ReVOS", page))
        foreground = self.home / "mask_dict_foreground.json"
        sections = {"mask": Section("", key="video", values=True)}
        self.foreground = open_index(foreground, sections) if foreground.is_file() else None
        super().__init__(file, split, self.home / "JPEGImages")

    def _folder(self, video: str) -> Path:
        folder = super()._folder(video)
        return folder if folder.is_dir() else inside(self.home, video, "video")

    def _with_masks(self, sample: VideoSample, key: str, expression: Record) -> VideoSample:
        kind = expression.get("type_id", 0)
        if kind not in _KINDS:
            raise ValueError(f"type_id is {str(kind)[:20]!r}; expected 0, 1 or 2")
        tag = expression.get("kind", "")  # of our own clips; the published files have no such key
        sample = replace(sample, tag=tag if isinstance(tag, str) else "")
        return _by_annotations(sample, self.masks, expression, _KINDS[kind], self._foreground_of(sample))

    def _foreground_of(self, sample: VideoSample) -> RleMasks:
        """Every object of the video's expressions, from the published file or united from the annotations."""
        frames, size = len(sample.frames), sample.size
        if self.foreground is not None:
            return RleMasks(self.foreground, (sample.video_id,), frames, size, "masks_rle")
        expressions = self._videos[sample.video_id]["expressions"].values()
        keys = dict.fromkeys(str(one) for expression in expressions for one in expression.get("anno_id") or ())
        return RleMasks(self.masks, tuple(keys), frames, size, "value")


class MevisDataset(VideoDataset):
    """Samples of MeViS. Splits: train, valid_u or valid, whose masks are not public."""

    def __init__(self, root: str | Path, split: str = "valid_u") -> None:
        page = "get it from https://github.com/henghuiding/MeViS"
        choices = [f"{home}{split}/meta_expressions.json" for home in ("", "MeViS/", "mevis/")]
        file = find_one(Path(root), choices, f"MeViS file of {split}", page)
        self.home = file.parent
        self.masks = None
        if split != "valid":
            self.masks = _mask_index(find_one(self.home, ["mask_dict.json"], f"masks of MeViS, {split}", page))
        super().__init__(file, split, self.home / "JPEGImages")

    def _with_masks(self, sample: VideoSample, key: str, expression: Record) -> VideoSample:
        return sample if self.masks is None else _by_annotations(sample, self.masks, expression)


def _meta(root: Path, homes: tuple[str, ...], split: str, page: str) -> tuple[Path, Path]:
    """The folder of the data, and the file of a split's expressions."""
    name = f"meta_expressions/{split}/meta_expressions.json"
    file = find_one(root, [home + name for home in homes], f"expressions of {split}", page)
    return file.parents[2], file


def _videos(file: Path) -> dict[str, Any]:
    content = read_json(file)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not all(isinstance(record, dict) for record in videos.values()):
        raise ValueError(f"{file} has no object of videos; expected videos with frames and expressions")
    return videos


def _object_number(value: Any) -> int:
    """The number of an object, 1 to 254."""
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
    if not 0 < number < VOID:
        raise ValueError(f"obj_id is {str(value)[:20]!r}; expected the number of an object, 1 to {VOID - 1}")
    return number


def _by_index(sample: VideoSample, home: Path, number: int, void: bool = False) -> VideoSample:
    folder = inside(home / "Annotations", sample.video_id, "video")
    files = tuple(inside(folder, f"{name}.png", "mask") for name in sample.frame_names)
    masks = PngMasks(files, (number,), sample.size)
    void_masks = PngMasks(files, (VOID,), sample.size) if void else None
    return replace(sample, object_ids=(str(number),), masks=masks, void=void_masks)


def _by_annotations(
    sample: VideoSample, index: Index, expression: Record, kind: str = "", foreground: FrameMasks | None = None
) -> VideoSample:
    listed = expression.get("anno_id")
    if not isinstance(listed, list) or not all(isinstance(one, int | str) for one in listed):
        raise ValueError(f"anno_id is {str(listed)[:40]!r}; expected a list of annotations")
    keys = tuple(str(one) for one in listed)
    if missing := [key for key in keys if not index.has("mask", key)]:
        raise ValueError(f"annotation {missing[0]} is not in {index.source}")
    masks = RleMasks(index, keys, len(sample.frames), sample.size, "value")
    return replace(sample, object_ids=keys, masks=masks, kind=kind, foreground=foreground)


def _mask_index(file: Path) -> Index:
    return open_index(file, {"mask": Section("", key="annotation", wrapped=True)})
