"""LLM-Seg's tables at compact scale: trains every row from several seeds, measures each, writes docs/results/llmseg.md.

    python benchmarks/llmseg_tables.py --runs runs/tables                        # everything that is not there yet
    python benchmarks/llmseg_tables.py --runs runs/tables --rows all ras --seeds 0
    python benchmarks/llmseg_tables.py --runs runs/tables --write                # and writes docs/results/llmseg.md

A run that was interrupted goes on where it stopped; one whose reports are in docs/reports/llmseg_tables is not made
again. Every row has the same number of steps, scenes and prompts, and begins with the same language model: that of
`--language-model`, with its LoRA folded in and without its `[SEG]`. All else is new. The seed decides new weights, the
order of scenes and the prompts that are drawn for them. All rows are measured by `tools/evaluate.py` on scenes that no
training saw.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskselect.ops.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "results" / "llmseg.md"
REPORTS = ROOT / "docs" / "reports" / "llmseg_tables"
MARKS = ("<!-- tables: benchmarks/llmseg_tables.py --write -->", "<!-- end of tables -->")
SCENES, SEED = 1000, 5
OVERLAYS = "configs/overlays"
TRAINED = {
    "iou_head": f"{OVERLAYS}/llmseg/iou_head.yaml",
    "fusion_iou": f"{OVERLAYS}/llmseg/fusion_iou.yaml",
    "fusion_iop": f"{OVERLAYS}/llmseg/fusion_iop.yaml",
    "all": "configs/llmseg.yaml",
    "vit_features": f"{OVERLAYS}/llmseg/vit_features.yaml",
    "conv_features": f"{OVERLAYS}/llmseg/conv_features.yaml",
    "sam_features": f"{OVERLAYS}/llmseg/sam_features.yaml",
    "ras": f"{OVERLAYS}/ras_beside_llmseg.yaml",
}
STRATEGIES = ("top_iou", "iop", "iop_or_top_iou", "iop_of_top_iou")
TRAINED_STRATEGY = "iop"  # what configs/llmseg.yaml says
LANGUAGE_MODEL = "language_model.safetensors"
METRICS = ("gIoU", "cIoU", "ncIoU", "F1", "N-acc")


@dataclass(frozen=True)
class Job:
    """One training: which row, from which seed, and where."""

    row: str
    seed: int
    folder: Path

    @property
    def weights(self) -> Path:
        """Where the trained model is."""
        return self.folder / ("ras.safetensors" if self.row == "ras" else "llmseg.safetensors")


def main() -> None:
    """Train, measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where training runs and reports go")
    parser.add_argument("--rows", nargs="+", choices=list(TRAINED), default=list(TRAINED))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of each training (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=SCENES, help="that are asked about (default: %(default)s)")
    parser.add_argument("--language-model", default="llmseg", help="an LLM-Seg to take it from (default: %(default)s)")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="kept reports (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="of frozen features and candidates")
    parser.add_argument("--jobs", type=int, default=1, help="at a time; each takes one thread (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="into docs/results/llmseg.md")
    options = parser.parse_args()
    if not (options.runs / LANGUAGE_MODEL).is_file():
        _write_language_model(options.language_model, options.runs / LANGUAGE_MODEL)
    jobs = [Job(row, seed, options.runs / f"{row}_{seed}") for seed in options.seeds for row in options.rows]
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda job: _train_and_measure(job, options), jobs):
            continue
    found = tables(options.reports, options.seeds)
    print(found)
    if options.write:
        write_text(DOCUMENT, with_tables(DOCUMENT.read_text(), found))


# --- running ----------------------------------------------------------------------------------------------------------


def _train_and_measure(job: Job, options: argparse.Namespace) -> None:
    wanted = ["scenes", *(["scenes-reasoning"] if job.row in ("all", "ras") else [])]
    wanted += [_report_of(strategy) for strategy in STRATEGIES] if job.row == "all" else []
    missing = [
        name for name in dict.fromkeys(wanted) if not (options.reports / job.folder.name / f"{name}.json").is_file()
    ]
    steps = json.loads(job.weights.with_suffix(".json").read_text())["steps"] if job.weights.is_file() else 0
    if missing and steps < options.steps:
        _train(job, options)
    for name in missing:
        _measure(job, name, options)


def _train(job: Job, options: argparse.Namespace) -> None:
    command = ["lightning", "fit", "-c", TRAINED[job.row], "--output", str(job.folder)]
    command += ["--seed_everything", str(job.seed), "--model.seed", str(job.seed)]
    command += ["--data.init_args.seed", str(job.seed), "--data.init_args.cache_dir", str(options.cache / "features")]
    command += ["--model.task.init_args.lmm.init_args.base", str((options.runs / LANGUAGE_MODEL).resolve())]
    command += ["--trainer.max_steps", str(options.steps), "--trainer.val_check_interval", "200"]
    if (job.folder / "last.ckpt").is_file():
        command += ["--ckpt_path", str(job.folder / "last.ckpt")]
    _run(command, job.folder / "fit.log")


def _write_language_model(name: str, path: Path) -> None:
    """The language model of an LLM-Seg, as a checkpoint of its own that `Llava` takes."""
    # Here, because torch takes seconds to import, and tools/_write_numbers.py needs the tables alone.
    from maskselect.backends.checkpoints import write_checkpoint  # noqa: PLC0415
    from maskselect.lmm.lora import merged_state  # noqa: PLC0415
    from maskselect.systems.loading import load_system  # noqa: PLC0415

    system: Any = load_system(name)[0]
    state = merged_state(system.lmm.model)
    del state["lm_head.weight"]  # tied to the embeddings
    embeddings = next(key for key in state if key.endswith("embed_tokens.weight"))
    assert system.seg_id == len(state[embeddings]) - 1
    state[embeddings] = state[embeddings][:-1]
    write_checkpoint(path, state, {"system": "llava", "from": name}, stored=None)


def _measure(job: Job, name: str, options: argparse.Namespace) -> None:
    """name: of the report, that of a data set, or a strategy, a slash and that."""
    *strategy, data = name.split("/")
    model = _with_strategy(job, strategy[0]) if strategy else job.weights
    made, kept = job.folder / f"{name}.json", options.reports / job.folder.name / f"{name}.json"
    command = ["maskselect", "evaluate", "--model", str(model), "--dataset", data, "--split", "test"]
    command += ["--scenes", str(options.scenes), "--seed", str(SEED)]
    command += ["--proposals", str(options.cache / "candidates"), "--output", str(made)]
    _run(command, made.with_suffix(".log"))
    report = json.loads(made.read_text()) | {"model": f"{job.row}, seed {job.seed}", "steps": options.steps}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps(report, indent=1) + "\n")


def _run(command: Sequence[str], log: Path) -> None:
    """One of this environment's commands, on one thread. Raises CalledProcessError; what it said is in the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name(command[0])
    print(*command, f"> {log}", flush=True)
    with log.open("a") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, stdout=file, stderr=file, check=True)


def _report_of(strategy: str) -> str:
    return "scenes" if strategy == TRAINED_STRATEGY else f"{strategy}/scenes"


def _with_strategy(job: Job, strategy: str) -> Path:
    """The same weights with a card that says another strategy."""
    model = job.folder / strategy / job.weights.name
    model.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(job.weights, model)
    card = json.loads(job.weights.with_suffix(".json").read_text())
    card["config"]["init_args"]["strategy"] = strategy
    write_text(model.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    return model


# --- tables -----------------------------------------------------------------------------------------------------------


def with_tables(text: str, found: str) -> str:
    """The page with other tables between its marks."""
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n\n" + found + "\n\n" + MARKS[1] + rest.split(MARKS[1])[1]


def tables(runs: Path = REPORTS, seeds: Sequence[int] = (0, 1, 2)) -> str:
    """Markdown of all tables, as far as their reports are there.

    Raises ValueError when rows were not trained equally long.
    """
    steps = {json.loads(file.read_text())["steps"] for file in runs.glob("*/*.json")}
    if len(steps) != 1:
        raise ValueError(f"{runs} has reports of {sorted(steps)} steps; expected reports of one length of training")
    lines = [
        f"{steps.pop()} steps of 192 prompts a run; {SCENES} test scenes that no training saw, three prompts each",
        "(six with reasoning). Percent: mean of the seeds and, in brackets, the lowest and the highest of them.",
    ]
    names = {
        "iou_head": "IoU head alone",
        "fusion_iou": "fusion, IoU head",
        "fusion_iop": "fusion, IoP head",
        "all": "fusion, both heads",
    }
    rows = [(label, row, "scenes") for row, label in names.items()]
    published = ["49.1 / 31.8", "48.6 / 28.5", "51.1 / 43.6", "52.3 / 47.5"]
    lines += _table("Parts (the paper's Table 2)", runs, seeds, rows, published)
    labels = dict(
        zip(STRATEGIES, ("the most like", "IoP above 0.5", "both together", "IoP, of the five most like"), strict=True)
    )
    paper = {
        "top_iou": "49.6 / 35.4",
        "iop": "52.3 / 47.5",
        "iop_or_top_iou": "53.8 / 42.2",
        "iop_of_top_iou": "51.4 / 43.6",
    }
    rows = [(f"{labels[s]} (`{s}`)", "all", _report_of(s)) for s in STRATEGIES]
    lines += _table("Strategies (Table 3)", runs, seeds, rows, list(paper.values()))
    rows = [
        ("ViT, as DINOv2 (`encoder_vit`)", "vit_features", "scenes"),
        ("ConvNet, as CLIP's ConvNeXt (`encoder_conv`)", "conv_features", "scenes"),
        ("SAM's own", "sam_features", "scenes"),
        ("ViT, ConvNet and positions together", "all", "scenes"),
    ]
    lines += _table("Features (Table 4)", runs, seeds, rows, ["52.3 / 47.5", "49.3 / 44.5", "46.2 / 44.7", ""])
    rows = [("LLM-Seg", "all", "scenes"), ("RAS", "ras", "scenes")]
    lines += _table("Beside RAS, plain prompts", runs, seeds, rows, parts=("overall", "1 target"))
    reasoned = [("LLM-Seg", "all", "scenes-reasoning"), ("RAS", "ras", "scenes-reasoning")]
    lines += _table(
        "Beside RAS, reasoning prompts and the same by name", runs, seeds, reasoned, parts=("reasoning", "naming")
    )
    return "\n".join(lines)


def _table(
    title: str,
    runs: Path,
    seeds: Sequence[int],
    rows: Sequence[tuple[str, str, str]],
    paper: Sequence[str] = (),
    parts: Sequence[str] = ("overall",),
) -> list[str]:
    """One table. rows: label, row and report.  paper: its gIoU / cIoU, row by row.  parts: of the report."""
    several = len(parts) > 1
    head = ["", *(["prompts"] if several else []), *METRICS, *(["paper's gIoU / cIoU"] if paper else [])]
    lines = ["", f"**{title}**", "", _line(head), _line(["---"] * len(head))]
    for number, (label, row, name) in enumerate(rows):
        files = [runs / f"{row}_{seed}" / f"{name}.json" for seed in seeds]
        reports = [json.loads(file.read_text()) for file in files if file.is_file()]
        for part in parts if reports else ():
            cells = [label, *([part] if several else [])]
            cells += [_spread([_figures(report, part)[metric] for report in reports]) for metric in METRICS]
            cells += [paper[number]] if paper else []
            lines.append(_line(cells))
    return lines


def _figures(report: dict[str, Any], part: str) -> dict[str, float | None]:
    if part == "overall":
        return report["metrics"]["overall"]
    return report["by_targets"]["1"] if part == "1 target" else report["by_kind"][part]


def _spread(found: Sequence[float | None]) -> str:
    """Nothing for what the part does not have, as the N-acc of prompts with one target."""
    values = [value for value in found if value is not None]
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
