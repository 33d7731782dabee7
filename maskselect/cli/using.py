"""Commands that use what exists: predict, propose, data, make_scenes. Each imports its parts when it runs."""

import argparse
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from maskselect.backends.optional import require
from maskselect.cli import loading
from maskselect.cli.failures import report_left_out
from maskselect.structures.left_out import LeftOut, one_line

if TYPE_CHECKING:
    import numpy as np

    from maskselect.exports import DataSet
    from maskselect.predictor import Model
    from maskselect.structures.references import Reference


def predict(options: argparse.Namespace) -> int:
    """Answer prompts about images or a video. Cheap checks come before the model is loaded."""
    _start_quickly()
    from maskselect.backends.devices import pick_device
    from maskselect.data.images import collect_images
    from maskselect.reports.files import output_folder, refuse_overwriting

    pick_device(options.device)
    if options.video is not None:
        return _predict_video(options)
    if options.reference_frame:
        raise ValueError("--reference-frame is for --video; expected it without --image")
    images = collect_images(options.image, options.output)
    refuse_overwriting(images, options.output, len(options.prompt), options.formats)
    references = _references(options.prompt, options.reference)
    flat = [reference for one in references for reference in one]
    with output_folder(options.output), _data_sets(options) as exported:
        if len(images) == 1 and not options.image[0].is_dir():
            image = _read(images[0], flat)
            _answer(loading.load_model(options), image, images[0], options, references, exported)
            return 0
        model, failed = loading.load_model(options), LeftOut()
        for path in images:
            try:
                _answer(model, _read(path, flat), path, options, references, exported)
            except (ValueError, OSError) as error:
                reason = one_line(error)
                failed.add(str(path), reason if str(path) in reason else f"{path}: {reason}")
    return report_left_out(failed, f"of {len(images)} images", "failed", shown=len(images))


@contextmanager
def _data_sets(options: argparse.Namespace) -> "Iterator[list[DataSet]]":
    """The data sets that `--formats` names. At the end each is finished and printed."""
    from maskselect.exports import data_sets

    with data_sets(options.formats, options.output) as exported:
        yield exported
    for one in exported:
        if one.pictures:
            print(f"{len(one.pictures)} image(s) with {one.masks} mask(s) -> {one.folder}", flush=True)


def _predict_video(options: argparse.Namespace) -> int:
    from maskselect.data.clips import open_clip
    from maskselect.reports.clip_files import SUFFIXES, clip_answer_paths, write_clip_answers
    from maskselect.reports.files import answer_stems, output_folder

    if unknown := [name for name in options.formats if name not in SUFFIXES]:
        raise ValueError(f"--formats {unknown[0]} is for --image; expected some of {', '.join(SUFFIXES)} for a video")
    references = _references(options.prompt, options.reference)
    if options.reference_frame and len(options.reference_frame) != len(options.reference):
        raise ValueError(
            f"{len(options.reference)} --reference need as many --reference-frame, got {len(options.reference_frame)}"
        )
    frames = [options.reference_frame or None if one else None for one in references]
    if "overlay" in options.formats:
        require("av", "video")  # also for a folder of frames
    clip = open_clip(options.video)
    for reference in (reference for one in references for reference in one):
        reference.check(clip.size)
    stems = answer_stems(options.video, len(options.prompt))
    written = {path.resolve() for stem in stems for path in clip_answer_paths(options.output, stem, options.formats)}
    if options.video.resolve() in written:
        raise ValueError(f"the answers would overwrite the frames {options.video}; expected another output folder")
    with output_folder(options.output):
        model = loading.load_model(options)
        groups = model.select_video_many(clip, options.prompt, references, frames, options.threshold)
        write_clip_answers(groups, options.output, options.video, options.model, options.formats)
    for stem, group in zip(stems, groups, strict=True):
        answer = "nothing answers the prompt" if group.no_target else f"{len(group)} object(s)"
        files = _listed(clip_answer_paths(options.output, stem, options.formats), stem)
        print(f"{options.video}: {answer}, in {len(clip)} frames{files}", flush=True)
    return 0


def _listed(paths: list[Path], stem: str) -> str:
    """Files for a line of output: the path of the first, and of the others what follows the stem."""
    names = [str(path) if path == paths[0] else path.name.removeprefix(stem) or f"{path}/" for path in paths]
    return f" -> {', '.join(names)}" if names else ""


def _start_quickly() -> None:
    """Settings of a process that answers one prompt, set before torch is imported.

    OpenMP's waiting threads sleep, because spinning threads slow each other down on a busy machine. Imports create a
    million objects and no garbage, so the collector runs rarely.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(50_000)


def _references(prompts: list[str], references: list[str]) -> "list[list[Reference]]":
    """The references of each prompt; all belong to the one prompt that has a `<mask-ref>`.

    Raises:
        ValueError: they do not fit the prompts, or one cannot be read.
    """
    import torch

    from maskselect.data.images import parse_reference
    from maskselect.structures.sample import MASK_REF, Prompt, prompt_text

    texts = [prompt_text(text) for text in prompts]
    pointing = [number for number, text in enumerate(texts) if MASK_REF in text]
    if references and len(pointing) > 1:
        raise ValueError(
            f"{len(pointing)} of {len(texts)} prompts hold {MASK_REF}; expected one at most where --reference is given"
        )
    owner = pointing[0] if pointing else 0
    for number, text in enumerate(texts):
        count = len(references) if number == owner else 0
        Prompt(text, torch.zeros(count, 1, 1, dtype=torch.bool))  # refuses a wrong number of references
    return [[parse_reference(text) for text in references] if number == owner else [] for number in range(len(texts))]


def _read(path: Path, references: "list[Reference]") -> "np.ndarray":
    """The image, after the references are checked against its size."""
    from maskselect.data.images import load_image

    image = load_image(path)
    for reference in references:
        reference.check((image.shape[0], image.shape[1]))
    return image


def _answer(
    model: "Model",
    image: "np.ndarray",
    path: Path,
    options: argparse.Namespace,
    references: "list[list[Reference]]",
    exported: "list[DataSet]",
) -> None:
    from maskselect.reports.files import answer_paths, answer_stems, write_answers

    if len(options.prompt) == 1:
        groups = [model.select(image, options.prompt[0], references=references[0], threshold=options.threshold)]
    else:
        groups = model.select_many(image, options.prompt, references=references, threshold=options.threshold)
    write_answers(groups, options.output, path, options.model, options.formats)
    for one in exported:
        one.add(path, groups)
    for stem, group in zip(answer_stems(path, len(groups)), groups, strict=True):
        answer = "nothing answers the prompt" if group.no_target else f"{len(group)} mask(s)"
        if group.candidates is not None:
            answer += f", of {group.candidates} candidates"
        elif group.failure is not None:
            answer = f"the answer could not be decoded, {group.failure}"
        elif group.no_target and group.text:
            answer = f"{answer}; the text is {group.text!r}"
        print(f"{path}: {answer}{_listed(answer_paths(options.output, stem, options.formats), stem)}", flush=True)


def propose(options: argparse.Namespace) -> int:
    """Store the candidates of a data set's images; status 1 if some images failed."""
    from maskselect.recipes.image_sources import open_dataset, open_images
    from maskselect.recipes.proposals import ERRORS, NamedProposer, propose_images
    from maskselect.reports.files import output_folder

    require("pyarrow", "data")
    _refuse_unused(options)
    place = Path.absolute if options.engine == "ray" else Path  # workers of Ray may run in other folders
    output, name = place(options.output), options.proposer
    if Path(name).suffix and Path(name).is_file():
        name = str(place(Path(name)))
    source = (
        open_images(place(options.images), options.image_column, options.key_column)
        if options.images is not None
        else open_dataset(
            options.dataset, options.root and place(options.root), options.split, options.scenes, options.seed
        )
    )
    with output_folder(output):
        proposed = propose_images(
            source,
            NamedProposer(name, options.device),
            output,
            options.resume,
            options.engine,
            options.workers,
            1 if options.device.startswith("cuda") else 0,
            options.per_shard,
        )
    masks = f", {proposed.masks:.1f} masks an image" if proposed.done else ""
    print(f"{proposed.done} images done, {proposed.there} were there already{masks} -> {options.output}")
    return report_left_out(LeftOut(proposed.failed), "images", f"failed, listed in {options.output / ERRORS}")


def _refuse_unused(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that has no effect, or lacks another one."""
    of_dataset = {"--root": options.root, "--split": options.split}
    of_parquet = {"--image-column": options.image_column, "--key-column": options.key_column}
    unused, needs = (of_dataset, "--dataset") if options.dataset is None else (of_parquet, "--images")
    if names := [name for name, value in unused.items() if value is not None]:
        raise ValueError(f"{names[0]} belongs to {needs}, which is not given")
    if options.engine == "ray" and options.device.startswith("cuda:"):
        raise ValueError(
            f"--device {options.device} is for --engine local; ray gives each worker a GPU of its own: cuda"
        )
    if options.dataset is not None and options.split is None:
        raise ValueError(f"--dataset {options.dataset} needs --split: the split whose images are used")


def data(options: argparse.Namespace) -> int:
    """Run a verb of `data`."""
    status: int = options.run(options)
    return status


def list_data(options: argparse.Namespace) -> int:
    """Print the catalog."""
    from maskselect.data.catalog import EVERYTHING
    from maskselect.reports.data import print_catalog

    print_catalog(EVERYTHING)
    return 0


def check_data(options: argparse.Namespace) -> int:
    """Check one data set; status 1 if it has problems."""
    from maskselect.data.catalog import find_any
    from maskselect.data.check import check
    from maskselect.reports.data import print_check
    from maskselect.reports.files import write_json

    entry = find_any(options.name)
    opened = entry.open_splits(options.root, options.split)
    reports = {split: check(reader, options.limit) for split, reader in opened.items()}
    print_check(options.name, entry, reports, options.limit is None)
    if options.output is not None:
        write_json({split: report.as_json() for split, report in reports.items()}, options.output)
    return 1 if any(report.problems for report in reports.values()) else 0


def scenes(options: argparse.Namespace) -> int:
    """Write generated scenes, or clips."""
    from maskselect.recipes.scene_files import write_scenes
    from maskselect.reports.files import output_folder

    if options.clips:
        return _clips(options)
    if options.frames is not None:
        raise ValueError("--frames belongs to --clips, which is not given")
    require("pyarrow", "data")
    sides = options.size or [256]
    if len(sides) > 2:
        raise ValueError(f"--size has {len(sides)} numbers; expected a side, or height and width")
    height, width = sides if len(sides) == 2 else sides * 2
    prompts = options.prompts_per_scene or 3
    with output_folder(options.output):
        propose = None
        if options.proposer is not None:
            from maskselect.proposers.loading import load_proposer

            proposer = load_proposer(options.proposer, options.device)
            propose = lambda image: proposer.propose(image).masks.cpu().numpy()  # noqa: E731
        path = write_scenes(
            options.output,
            options.split,
            options.count,
            options.seed,
            (height, width),
            prompts,
            propose,
            options.reasoning_per_scene,
            options.unknown_per_scene,
        )
    most = prompts + 2 * options.reasoning_per_scene + options.unknown_per_scene
    print(f"{options.count} scenes with up to {most} prompts each -> {path}")
    return 0


def _clips(options: argparse.Namespace) -> int:
    from maskselect.recipes.clip_files import write_clips
    from maskselect.scenes.clip_samples import PROMPTS_PER_CLIP
    from maskselect.scenes.motion import FRAMES

    unused = {
        "--size": options.size,
        "--proposer": options.proposer,
        "--reasoning-per-scene": options.reasoning_per_scene,
        "--unknown-per-scene": options.unknown_per_scene,
    }
    if names := [name for name, value in unused.items() if value]:
        raise ValueError(f"{names[0]} belongs to scenes that do not move; it has no effect with --clips")
    prompts = options.prompts_per_scene or PROMPTS_PER_CLIP
    path = write_clips(options.output, options.split, options.count, options.seed, options.frames or FRAMES, prompts)
    print(f"{options.count} clips with up to {prompts} prompts each -> {path}")
    return 0
