"""Publishing a checkpoint: `maskselect.push_to_hub("runs/ras", "org/name", report="report.json")`.

Published are the safetensors file, its card, the files of its folder that its config needs, and a model card.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from maskselect.backends import checkpoints, hub
from maskselect.backends.hub import Repository
from maskselect.ops.atomic import atomic_folder
from maskselect.predictor import fingerprint
from maskselect.reports.evaluated import Evaluation, read_evaluation
from maskselect.reports.model_card import draw_model_card
from maskselect.systems.loading import BESIDE, check_answers_prompts
from maskselect.systems.named_weights import named_weights


def push_to_hub(
    checkpoint: str | Path,
    repository: str,
    *,
    report: str | Path | Sequence[str | Path] = (),
    private: bool | None = None,
    revision: str | None = None,
    license: str | None = None,
    folder: str | Path | None = None,
) -> str:
    """Publish a checkpoint with a model card, in one commit.

    Args:
        checkpoint: shipped name, file or folder.
        repository: `org/name` or `hf://org/name`; created if it does not exist.
        report: reports of `maskselect evaluate` on this checkpoint.
        private: whether a new repository is private; None for the owner's default.
        revision: a branch; created if it does not exist.
        license: the hub's name of the licence, for the model card.
        folder: write the files to this absent or empty folder instead of uploading them.

    Returns:
        The page of the commit, or the folder.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: checkpoint, card or report is damaged, the report is of another model, `maskselect.load` cannot
            take the checkpoint or it needs weights of this machine alone, or the repository is not suitable.
        PermissionError: the hub refuses.
        OSError: the hub cannot be reached. After an error nothing is uploaded.
    """
    target = Repository.parse(repository)
    if revision is not None:
        target = replace(target, revision=revision)
    if folder is not None and private is not None:
        raise ValueError("private has no effect with folder; expected one of the two")
    file = checkpoints.find_checkpoint(checkpoint)
    card = _loadable(file)
    reports = [report] if isinstance(report, str | Path) else list(report)
    evaluations = [read_evaluation(Path(path)) for path in reports]
    _refuse_others(evaluations, file, target)
    readme = draw_model_card(card, file, target.name, str(target), evaluations, license)
    files: dict[str, Path | bytes] = {
        **_beside(file, card),
        file.name: file,
        f"{file.stem}.json": file.with_suffix(".json"),
        hub.MODEL_CARD: readme.encode(),
    }
    if folder is not None:
        _write(Path(folder), files)
        return str(folder)
    return hub.upload(target, files, private, f"Upload {file.stem} with maskselect")


def _loadable(file: Path) -> dict[str, Any]:
    """The card of a checkpoint. Raises ValueError if others cannot load it."""
    card = checkpoints.read_card(file)
    check_answers_prompts(card, file)
    unavailable = named_weights(card["config"]).own
    if unavailable:
        raise ValueError(
            f"the card of {file} names {unavailable[0]}, which is on this machine alone; expected weights that are "
            f"shipped, on the hub, or in the checkpoint's own folder, named {BESIDE}/{Path(unavailable[0]).name}"
        )
    return card


def _refuse_others(evaluations: Sequence[Evaluation], file: Path, target: Repository) -> None:
    """Raise ValueError for a report of another model, and for two reports of the same samples."""
    paths: dict[tuple[Any, ...], Path] = {}
    for one in evaluations:
        if not _is_of(one, file, target):
            raise ValueError(
                f"report {one.path} is of the model {one.report['model']}, which is not {file} as it is now, weights "
                "and card; expected a report of the checkpoint that is published"
            )
        key = (one.report["dataset"], one.report["split"], one.seed, one.ground_truth_added)
        if key in paths:
            raise ValueError(f"reports {paths[key]} and {one.path} are of the same samples; expected one of them")
        paths[key] = one.path


def _is_of(one: Evaluation, file: Path, target: Repository) -> bool:
    """Whether a report is of a checkpoint: by its fingerprint, or by the evaluated name if that is unknown."""
    if one.fingerprint:
        return one.fingerprint == fingerprint(file)
    name = str(one.report["model"])
    if name.startswith("hf://"):
        return Repository.parse(name).name == target.name
    try:
        evaluated = checkpoints.find_checkpoint(name)
    except (FileNotFoundError, ValueError):
        return Path(name).stem == file.stem
    return fingerprint(evaluated) == fingerprint(file)


def _beside(file: Path, card: Mapping[str, Any]) -> dict[str, Path]:
    """The files of the checkpoint's folder that its config needs, by their relative paths."""
    needed: dict[str, Path] = {}
    for name in named_weights(card["config"]).beside:
        path = file.parent / name
        if name == "." or ".." in PurePosixPath(name).parts:
            raise ValueError(f"the card of {file} names {BESIDE}/{name}; expected a file or folder in its own folder")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = {one.relative_to(file.parent): one for one in inside if one.is_file()}
        files = {at: one for at, one in files.items() if not any(part.startswith(".") for part in at.parts)}
        if not files:
            raise FileNotFoundError(f"{path} is not there, which the card of {file} names; expected it beside")
        needed |= {at.as_posix(): one for at, one in files.items()}
    return needed


def _write(folder: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write all files into a folder, which appears whole or not at all."""
    with atomic_folder(folder, durable=True) as part:
        for name, source in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                path.write_bytes(source)
            else:
                shutil.copyfile(source, path)
