"""Commands that use what is there: predict, propose, data, scenes. Each imports what it needs when it runs."""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskselect.backends.optional import require
from maskselect.cli import loading

if TYPE_CHECKING:
    import numpy as np

    from maskselect.structures.references import Reference

_TOLD = 20  # failures of a data set that are told one by one


def predict(options: argparse.Namespace) -> int:
    """Everything that is cheap to check comes before the model is loaded."""
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
    refuse_overwriting(images, options.output, len(options.prompt))
    references = _references(options.prompt, options.reference)
    everything = [reference for own in references for reference in own]
    with output_folder(options.output):
        if len(images) == 1 and not options.image[0].is_dir():
            image = _read(images[0], everything)
            _answer(loading.load_model(options), image, images[0], options, references)
            return 0
        model = loading.load_model(options)
        failed: dict[Path, Exception] = {}
        for path in images:
            try:
                _answer(model, _read(path, everything), path, options, references)
            except (ValueError, OSError) as error:
                failed[path] = error
    return _tell_failed(failed, len(images))


def _predict_video(options: argparse.Namespace) -> int:
    """Answers about one video. Everything that is cheap to check comes before the model is loaded."""
    from maskselect.data.clips import open_clip
    from maskselect.reports.clip_files import write_clip_answers
    from maskselect.reports.files import answer_stems, output_folder

    references = _references(options.prompt, options.reference)
    if options.reference_frame and len(options.reference_frame) != len(options.reference):
        raise ValueError(
            f"{len(options.reference)} --reference need as many --reference-frame, got {len(options.reference_frame)}"
        )
    frames = [options.reference_frame or None if own else None for own in references]
    require("av", "video")  # writes the overlay, of a folder of frames too
    clip = open_clip(options.video)
    for reference in (reference for own in references for reference in own):
        reference.check(clip.size)
    stems = answer_stems(options.video, len(options.prompt))
    if any((options.output / stem).resolve() == options.video.resolve() for stem in stems):
        raise ValueError(f"the answers would overwrite the frames {options.video}; expected another output folder")
    with output_folder(options.output):
        model = loading.load_model(options)
        groups = model.select_video_many(clip, options.prompt, references, frames, options.threshold)
        write_clip_answers(groups, options.output, options.video, options.model)
    for stem, group in zip(stems, groups, strict=True):
        found = "nothing answers the prompt" if group.no_target else f"{len(group)} object(s)"
        files = f"{options.output / stem}.json, .overlay.mp4, and masks in {options.output / stem}"
        print(f"{options.video}: {found}, in {len(clip)} frames -> {files}", flush=True)
    return 0


def _start_quickly() -> None:
    """Settings of a process that answers one prompt, made before it imports torch.

    OpenMP's threads sleep while they wait: otherwise they spin, and on a busy machine take the processor from one
    another. Imports make a million objects and no garbage, so the collector looks rarely.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(50_000)


def _references(prompts: list[str], given: list[str]) -> "list[list[Reference]]":
    """The references of each prompt: all belong to the one prompt that has any.

    Raises ValueError when they do not fit the prompts, or one cannot be read.
    """
    import torch

    from maskselect.data.images import parse_reference
    from maskselect.structures.sample import MASK_REF, Prompt, prompt_text

    texts = [prompt_text(text) for text in prompts]
    pointing = [number for number, text in enumerate(texts) if MASK_REF in text]
    if given and len(pointing) > 1:
        raise ValueError(
            f"{len(pointing)} of {len(texts)} prompts hold {MASK_REF}; expected one at most where --reference is given"
        )
    owner = pointing[0] if pointing else 0
    for number, text in enumerate(texts):
        count = len(given) if number == owner else 0
        Prompt(text, torch.zeros(count, 1, 1, dtype=torch.bool))  # refuses what does not fit
    return [[parse_reference(text) for text in given] if number == owner else [] for number in range(len(texts))]


def _read(path: Path, references: "list[Reference]") -> "np.ndarray":
    """The image, with the references checked against its size."""
    from maskselect.data.images import load_image

    image = load_image(path)
    for reference in references:
        reference.check((image.shape[0], image.shape[1]))
    return image


def _answer(
    model: Any, image: "np.ndarray", path: Path, options: argparse.Namespace, references: "list[list[Reference]]"
) -> None:
    from maskselect.reports.files import answer_stems, write_answers

    if len(options.prompt) == 1:
        groups = [model.select(image, options.prompt[0], references=references[0], threshold=options.threshold)]
    else:
        groups = model.select_many(image, options.prompt, references=references, threshold=options.threshold)
    write_answers(groups, options.output, path, options.model)
    for stem, group in zip(answer_stems(path, len(groups)), groups, strict=True):
        found = "nothing answers the prompt" if group.no_target else f"{len(group)} mask(s)"
        files = f"{options.output / stem}.json, .mask.png, .overlay.png"
        print(f"{path}: {found}, of {group.candidates} candidates -> {files}", flush=True)


def _tell_failed(failed: dict[Path, Exception], count: int) -> int:
    """Names the images of a batch that failed, and gives the exit status."""
    if failed:
        print(f"error: {len(failed)} of {count} images failed:", file=sys.stderr)
    for path, error in failed.items():
        text = sentence(error)
        print(f"  {text}" if str(path) in text else f"  {path}: {text}", file=sys.stderr)
    return 1 if failed else 0


def propose(options: argparse.Namespace) -> int:
    """Candidates for a data set; status 1 when some images failed."""
    from maskselect.recipes.image_sources import open_dataset, open_images
    from maskselect.recipes.proposals import ERRORS, NamedProposer, propose_images
    from maskselect.reports.files import output_folder

    require("pyarrow", "data")
    _refuse_unused(options)
    place = Path.absolute if options.engine == "ray" else Path  # other processes may stand in other folders
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
        made = propose_images(
            source,
            NamedProposer(name, options.device),
            output,
            options.resume,
            options.engine,
            options.workers,
            1 if options.device.startswith("cuda") else 0,
            options.per_shard,
        )
    told = f"{made.done} images done, {made.there} were there already"
    print(
        f"{told}, {made.masks:.1f} masks an image -> {options.output}" if made.done else f"{told} -> {options.output}"
    )
    return _tell_unproposed(made.failed, options.output / ERRORS)


def _refuse_unused(options: argparse.Namespace) -> None:
    """Raises ValueError for options that would be passed over, or that lack another."""
    of_dataset = {"--root": options.root, "--split": options.split}
    of_parquet = {"--image-column": options.image_column, "--key-column": options.key_column}
    unused, needs = (of_dataset, "--dataset") if options.dataset is None else (of_parquet, "--images")
    if given := [name for name, value in unused.items() if value is not None]:
        raise ValueError(f"{given[0]} belongs to {needs}, which is not given")
    if options.engine == "ray" and options.device.startswith("cuda:"):
        raise ValueError(
            f"--device {options.device} is for --engine local; ray gives each worker a GPU of its own: cuda"
        )
    if options.dataset is not None and options.split is None:
        raise ValueError(f"--dataset {options.dataset} needs --split: the part whose images are wanted")


def _tell_unproposed(failed: dict[str, str], file: Path) -> int:
    """Names the first images that failed, and gives the exit status."""
    if failed:
        print(f"error: {len(failed)} images failed, listed in {file}:", file=sys.stderr)
    for key, reason in list(failed.items())[:_TOLD]:
        print(f"  {reason}" if key in reason else f"  {key}: {reason}", file=sys.stderr)
    if len(failed) > _TOLD:
        print(f"  and {len(failed) - _TOLD} more", file=sys.stderr)
    return 1 if failed else 0


def data(options: argparse.Namespace) -> int:
    """The catalog, the check of one data set (status 1 when it has problems), or a builder."""
    if options.action == "build":
        from maskselect.cli.building import build

        return build(options)
    from maskselect.data.catalog_others import EVERYTHING, find_any
    from maskselect.reports.data import print_catalog, print_check

    if options.action == "list":
        print_catalog(EVERYTHING)
        return 0
    from maskselect.data.check import check
    from maskselect.reports.files import write_json

    entry = find_any(options.name)
    opened = entry.open_splits(options.root, options.split)
    reports = {split: check(reader, options.limit) for split, reader in opened.items()}
    print_check(options.name, entry, reports, options.limit is None)
    if options.output is not None:
        write_json({split: report.as_json() for split, report in reports.items()}, options.output)
    return 1 if any(report.problems for report in reports.values()) else 0


def scenes(options: argparse.Namespace) -> int:
    """Generated scenes on disk."""
    from maskselect.recipes.scene_files import write_scenes
    from maskselect.reports.files import output_folder

    require("pyarrow", "data")
    if len(options.size) > 2:
        raise ValueError(f"--size has {len(options.size)} numbers; expected a side, or height and width")
    height, width = options.size if len(options.size) == 2 else options.size * 2
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
            options.prompts_per_scene,
            propose,
            options.reasoning_per_scene,
            options.unknown_per_scene,
        )
    most = options.prompts_per_scene + 2 * options.reasoning_per_scene + options.unknown_per_scene
    print(f"{options.count} scenes with up to {most} prompts each -> {path}")
    return 0


def sentence(error: BaseException) -> str:
    """An error as one line."""
    from maskselect.structures.left_out import one_line

    return one_line(error)
