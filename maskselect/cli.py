"""The commands. `maskselect` and `lightning` are this same program; `tools/*.py` call one verb each.

Imports happen inside the verbs, so that `--help` is instant. Bad input ends in one sentence on standard error and
status 2; set MASKSELECT_TRACEBACK=1 to see where it arose.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from maskselect.structures.references import Reference
    from maskselect.structures.sample import Sample

TRAINING_VERBS = ("fit", "validate", "test", "predict")
_CONFIG = ("-c", "--config")
USAGE = """usage: {prog} VERB [options]

Training, with Lightning (fit --help tells all of its options):
  fit|validate|test|predict -c CONFIG    for example: {prog} fit -c configs/ras.yaml

Use ({prog} VERB --help tells the options):
  predict --image FILE --prompt TEXT     select the masks that answer a prompt
  evaluate --model M --dataset D         measure a model on a data set
  calibrate --model M --dataset D        choose a model's threshold on validation samples
  compare A.json B.json                  two evaluations of the same samples, paired
  recall --proposer P --dataset D        the most that any selector can reach with a proposer's candidates
  propose --images DIR --output DIR      candidate masks for a folder of images
  data list                              the data sets that can be read, and where to get them
  data check NAME --root DIR             walk a data set: counts, missing images, damaged or empty masks
  scenes --output DIR --split S          generate scenes with prompts and ground truth
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs one command and gives its exit status: 0 done, 1 some images of a batch failed, 2 bad input.

    argv: verb and options; the command line's by default. prog: the name to answer with.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = prog or Path(sys.argv[0]).name
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(prog=prog), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"maskselect {version('maskselect')}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if _is_training(verb, rest):
        return _guarded(lambda: _train(arguments), f"{prog} {verb}")
    if verb not in VERBS:
        known = ", ".join(dict.fromkeys((*TRAINING_VERBS, *VERBS)))
        print(f"{prog}: error: unknown verb {verb!r}; expected one of {known}", file=sys.stderr)
        return 2
    return tool(verb, rest, f"{prog} {verb}")


def tool(verb: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """One verb with its options, the command line's by default: what `tools/*.py` call."""
    make_parser, run = VERBS[verb]
    parser = make_parser(prog or Path(sys.argv[0]).name)
    options = parser.parse_args(argv)
    return _guarded(lambda: run(options), parser.prog)


def _is_training(verb: str, rest: list[str]) -> bool:
    """`predict` is both: Lightning's with a config, mask selection without."""
    configured = any(word in _CONFIG or word.startswith(tuple(f"{flag}=" for flag in _CONFIG)) for word in rest)
    return verb in TRAINING_VERBS and (verb != "predict" or configured)


def _train(arguments: list[str]) -> int:
    from maskselect.training.cli import run

    run(arguments)
    return 0


def _guarded(run: Callable[[], int], prog: str) -> int:
    """The status of `run`; errors that a user can cause become one sentence."""
    try:
        return run()
    except (ValueError, OSError) as error:
        if os.environ.get("MASKSELECT_TRACEBACK"):
            raise
        print(f"{prog}: error: {sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


def sentence(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """argparse whose complaint is one sentence, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Status 2 with the message alone."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _predict_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Select the group of masks that answers a prompt.")
    parser.add_argument("--image", nargs="+", type=Path, required=True, metavar="FILE_OR_DIR")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="may hold <mask-ref> for things pointed at")
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="REF",
        help="for the n-th <mask-ref>: a mask image (non-zero is inside), box:x0,y0,x1,y1 or point:x,y in pixels",
    )
    parser.add_argument("--output", type=Path, default=Path("outputs"), metavar="DIR", help="default: %(default)s/")
    parser.add_argument(
        "--threshold", type=_fraction, metavar="T", help="least score in [0, 1]; default: the model's own"
    )
    _add_model(parser)
    return parser


def _evaluate_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Measure a model through the same path that predict takes.")
    _add_samples(parser, "test", several=True)
    protocol_help = "how the numbers are defined, see docs/metrics.md; default: the data set's own"
    parser.add_argument("--protocol", metavar="NAME", help=protocol_help)
    parser.add_argument("--with-gt-candidates", action="store_true", help="add the ground-truth masks to the pool")
    parser.add_argument("--output", type=Path, required=True, metavar="REPORT.json")
    _add_model(parser)
    return parser


def _calibrate_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Choose the threshold of highest F1 on validation samples.")
    _add_samples(parser, "val")
    n_acc_help = "percent; only thresholds whose N-acc is at least this"
    parser.add_argument("--least-n-acc", type=float, default=0.0, metavar="P", help=n_acc_help)
    parser.add_argument("--output", type=Path, metavar="TABLE.json", help="what each threshold gives")
    parser.add_argument("--write", action="store_true", help="store the threshold in the checkpoint's card")
    _add_model(parser)
    return parser


def _compare_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Compare two evaluations sample by sample.")
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")
    parser.add_argument("--cases", type=_positive, default=10, metavar="N", help="changed most (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="COMPARISON.json")
    return parser


def _recall_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="The ceiling of any selector over a proposer's candidates.")
    _add_samples(parser, "test")
    parser.add_argument("--proposer", default="sam", metavar="CONFIG_OR_NAME", help="default: %(default)s")
    parser.add_argument("--output", type=Path, metavar="REPORT.json")
    _add_device(parser)
    return parser


def _add_samples(parser: argparse.ArgumentParser, split: str, several: bool = False) -> None:
    dataset_help = "scenes (generated where --root has none), or a name that `maskselect data list` tells"
    count = {"nargs": "+"} if several else {}
    parser.add_argument("--dataset", required=True, metavar="NAME", help=dataset_help, **count)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--split", default=split, metavar="S", help="default: %(default)s")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N samples")
    parser.add_argument("--scenes", type=_positive, metavar="N", help="generated scenes to ask about (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of generated scenes (default: %(default)s)")
    parser.add_argument("--reference-column", metavar="NAME", help="column of the reference masks, if not mask_refs")


def _propose_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Write candidate masks for a folder of images.")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--proposer", default="sam", metavar="CONFIG_OR_NAME", help="default: %(default)s")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="leave out images that have their candidates already")
    _add_device(parser)
    return parser


def _data_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Data sets: what there is, and whether a copy is whole.")
    verbs = parser.add_subparsers(dest="action", required=True, metavar="list|check", parser_class=_Parser)
    verbs.add_parser("list", help="the data sets that can be read, and where to get them")
    check = verbs.add_parser("check", help="walk a data set", description="Walk a data set; status 1 with problems.")
    check.add_argument("name", metavar="NAME")
    check.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the data set")
    check.add_argument(
        "--split", metavar="S", help="only this one; default: all of the published splits that are there"
    )
    check.add_argument("--limit", type=_positive, metavar="N", help="only the first N samples of a split")
    check.add_argument("--output", type=Path, metavar="REPORT.json", help="write the report too")
    return parser


def _scenes_parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Generate scenes with prompts and ground truth, in MaskGroups-HQ's format.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", required=True, metavar="S", help="train, val, test, test-words or test-look")
    parser.add_argument("--count", type=_positive, required=True, metavar="N", help="number of scenes")
    parser.add_argument("--seed", type=int, required=True, metavar="K")
    size_help = "side, or height and width (default: 256)"
    parser.add_argument("--size", type=_positive, nargs="+", default=[256], metavar="PX", help=size_help)
    parser.add_argument("--prompts-per-scene", type=_positive, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--proposer", metavar="CONFIG_OR_NAME", help="fill mask_pool with its candidates")
    _add_device(parser)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="ras", metavar="NAME_OR_PATH", help="shipped name, file, folder or hf://… (default: ras)"
    )
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within [0, 1]")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _predict(options: argparse.Namespace) -> int:
    """Everything that is cheap to check comes before the model is loaded."""
    import torch

    from maskselect.data.images import collect_images, parse_reference
    from maskselect.reports.files import output_folder, refuse_overwriting
    from maskselect.structures.sample import Prompt

    Prompt(options.prompt, torch.zeros(len(options.reference), 1, 1, dtype=torch.bool))  # refuses what does not fit
    images = collect_images(options.image, options.output)
    refuse_overwriting(images, options.output)
    references = [parse_reference(text) for text in options.reference]
    with output_folder(options.output):
        if len(images) == 1 and not options.image[0].is_dir():
            image = _read(images[0], references)
            _answer(_load_model(options), image, images[0], options, references)
            return 0
        model = _load_model(options)
        failed: dict[Path, Exception] = {}
        for path in images:
            try:
                _answer(model, _read(path, references), path, options, references)
            except (ValueError, OSError) as error:
                failed[path] = error
    return _tell_failed(failed, len(images))


def _read(path: Path, references: "list[Reference]") -> "np.ndarray":
    """The image, with the references checked against its size."""
    from maskselect.data.images import load_image

    image = load_image(path)
    for reference in references:
        reference.check((image.shape[0], image.shape[1]))
    return image


def _answer(
    model: Any, image: "np.ndarray", path: Path, options: argparse.Namespace, references: "list[Reference]"
) -> None:
    from maskselect.reports.files import write_answer

    group = model.select(image, options.prompt, references=references, threshold=options.threshold)
    write_answer(group, options.output, path, options.model)
    found = "nothing answers the prompt" if group.no_target else f"{len(group.masks)} mask(s)"
    files = f"{options.output / path.stem}.json, .mask.png, .overlay.png"
    print(f"{path}: {found}, of {group.candidates} candidates -> {files}", flush=True)


def _tell_failed(failed: dict[Path, Exception], count: int) -> int:
    """Names the images of a batch that failed, and gives the exit status."""
    if failed:
        print(f"error: {len(failed)} of {count} images failed:", file=sys.stderr)
    for path, error in failed.items():
        text = sentence(error)
        print(f"  {text}" if str(path) in text else f"  {path}: {text}", file=sys.stderr)
    return 1 if failed else 0


def _evaluate(options: argparse.Namespace) -> int:
    from maskselect.reports.files import output_folder

    with output_folder(options.output.absolute().parent):
        opened = {name: _samples(options, name) for name in options.dataset}
        model = _load_model(options)
        for name, (samples, total) in opened.items():
            several = f"{options.output.stem}-{name}{options.output.suffix}"
            output = options.output if len(opened) == 1 else options.output.with_name(several)
            _evaluate_one(options, model, name, samples, total, output)
    return 0


def _evaluate_one(
    options: argparse.Namespace, model: Any, name: str, samples: "Iterator[Sample]", total: int | None, output: Path
) -> None:
    """Scores what was not scored before, then writes report, samples, and page."""
    from maskselect.data.catalog import CATALOG
    from maskselect.evaluation import build_report, score_samples
    from maskselect.reports.cases import CaseKeeper
    from maskselect.reports.files import write_json, write_text
    from maskselect.reports.page import draw_page
    from maskselect.reports.records import RecordFile, records_path
    from maskselect.reports.table import print_report

    protocol = options.protocol or (CATALOG[name].protocol if name in CATALOG else "maskselect")
    settings = {"seed": options.seed, "with_gt": options.with_gt_candidates, "protocol": protocol}
    key = {"model": getattr(model, "fingerprint", ""), "data": [name, str(options.root), options.split]} | settings
    keeper, pictures, asked = CaseKeeper(), output.with_suffix(".cases.json"), set[str]()

    def noted() -> "Iterator[Sample]":
        for sample in samples:
            asked.add(sample.sample_id)
            yield sample

    with RecordFile(records_path(output), key) as records:
        if records.rows and pictures.is_file():
            keeper.load(pictures)
        done = [row.sample_id for row in records.rows]
        try:
            for row in score_samples(
                model,
                noted(),
                total=total,
                what=f"{name} {options.split}",
                with_gt=options.with_gt_candidates,
                protocol=protocol,
                done=done,
                watch=keeper.watch,
            ):
                records.add(row)
        finally:
            keeper.save(pictures)
    rows = [row for row in records.rows if row.sample_id in asked]
    report = build_report(rows, name, options.split, options.model, options.with_gt_candidates, protocol)
    write_json(report, output)
    write_text(draw_page(report, rows, keeper.cases(), _command(options)), output.with_suffix(".html"))
    print_report(report)
    print(f"report: {output}, page: {output.with_suffix('.html')}")


def _command(options: argparse.Namespace) -> str:
    """The evaluation's own command line, for the page."""
    words = [
        "tools/evaluate.py",
        "--model",
        str(options.model),
        "--dataset",
        *options.dataset,
        "--split",
        options.split,
    ]
    for flag in ("root", "limit", "scenes", "seed", "protocol"):
        value = getattr(options, flag)
        words += [f"--{flag}", str(value)] if value not in (None, "") else []
    return shlex.join(words + (["--with-gt-candidates"] if options.with_gt_candidates else []))


def _compare(options: argparse.Namespace) -> int:
    from maskselect.reports.compare import compare, print_comparison
    from maskselect.reports.files import write_json
    from maskselect.reports.records import in_order, read_records

    first, second = in_order(read_records(options.first), read_records(options.second))
    found = compare(first, second, options.cases)
    print_comparison(found, str(options.first), str(options.second))
    if options.output is not None:
        write_json(found, options.output)
    return 0


def _recall(options: argparse.Namespace) -> int:
    from maskselect.evaluation import measure_ceiling
    from maskselect.proposers.loading import load_proposer
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_ceiling

    samples, total = _samples(options, options.dataset)
    proposer, identity = load_proposer(options.proposer, options.device)
    found = measure_ceiling(proposer, samples, total)
    print_ceiling(found, f"{options.proposer} on {options.dataset} {options.split}")
    if options.output is not None:
        write_json({"dataset": options.dataset, "split": options.split, "proposer": identity, **found}, options.output)
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from maskselect.backends.checkpoints import change_card, find_checkpoint
    from maskselect.calibration import choose, sweep
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_thresholds

    if options.write:
        find_checkpoint(options.model)  # a card on the hub cannot be changed: better told before the work than after
    samples, total = _samples(options, options.dataset)
    found = sweep(_load_model(options), samples, total)
    if options.output is not None:
        write_json({str(threshold): row for threshold, row in found.items()}, options.output)
    chosen = choose(found, options.least_n_acc)
    print_thresholds(found, chosen)
    if options.write:
        source = {"dataset": options.dataset, "split": options.split, "samples": found[chosen]["samples"]}
        rule = {"threshold_from": source | {"least_n_acc": options.least_n_acc}}
        print(f"threshold {chosen} -> {change_card(options.model, {'threshold': chosen} | rule)}")
    return 0


def _samples(options: argparse.Namespace, name: str) -> "tuple[Iterator[Sample], int | None]":
    from maskselect.data.questions import open_samples

    return open_samples(
        name,
        options.root,
        options.split,
        limit=options.limit,
        reference_column=options.reference_column,
        scenes=options.scenes,
        seed=options.seed,
    )


def _propose(options: argparse.Namespace) -> int:
    from maskselect.backends.progress import track
    from maskselect.data.images import list_images, load_image
    from maskselect.proposers.loading import load_proposer
    from maskselect.proposers.precomputed import PrecomputedProposer
    from maskselect.reports.files import output_folder

    if options.engine == "ray":
        raise ValueError("engine 'ray' is not there yet; expected local")
    images = list_images(options.images)
    failed: dict[Path, Exception] = {}
    with output_folder(options.output):
        proposer, identity = load_proposer(options.proposer, options.device)
        store = PrecomputedProposer(options.output, identity)
        left = [path for path in images if not (options.resume and store.has(path.name))]
        for path in track(left, len(left), "Proposing", "images"):
            try:
                store.write(path.name, proposer.propose(load_image(path)))
            except (ValueError, OSError) as error:
                failed[path] = error
    print(f"{len(left) - len(failed)} images done, {len(images) - len(left)} were there already -> {options.output}")
    return _tell_failed(failed, len(images))


def _data(options: argparse.Namespace) -> int:
    from maskselect.data.catalog import CATALOG, find_entry
    from maskselect.reports.data import print_catalog, print_check

    if options.action == "list":
        print_catalog(CATALOG)
        return 0
    from maskselect.data.check import check
    from maskselect.reports.files import write_json

    entry = find_entry(options.name)
    opened = entry.open_splits(options.root, options.split)
    reports = {split: check(reader, options.limit) for split, reader in opened.items()}
    print_check(options.name, entry, reports, options.limit is None)
    if options.output is not None:
        write_json({split: report.as_json() for split, report in reports.items()}, options.output)
    return 1 if any(report.problems for report in reports.values()) else 0


def _scenes(options: argparse.Namespace) -> int:
    from maskselect.data.scenes.writer import write_scenes
    from maskselect.reports.files import output_folder

    if len(options.size) > 2:
        raise ValueError(f"--size has {len(options.size)} numbers; expected a side, or height and width")
    height, width = options.size if len(options.size) == 2 else options.size * 2
    with output_folder(options.output):
        propose = None
        if options.proposer is not None:
            from maskselect.proposers.loading import load_proposer

            proposer, _ = load_proposer(options.proposer, options.device)
            propose = lambda image: proposer.propose(image).masks.cpu().numpy()  # noqa: E731
        path = write_scenes(
            options.output,
            options.split,
            options.count,
            options.seed,
            (height, width),
            options.prompts_per_scene,
            propose,
        )
    print(f"{options.count} scenes with up to {options.prompts_per_scene} prompts each -> {path}")
    return 0


def _load_model(options: argparse.Namespace) -> Any:
    from maskselect.backends.startup import quick_imports

    with quick_imports():
        from maskselect.predictor import load

        return load(options.model, device=options.device)


VERBS: dict[str, tuple[Callable[[str], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
    "predict": (_predict_parser, _predict),
    "evaluate": (_evaluate_parser, _evaluate),
    "compare": (_compare_parser, _compare),
    "recall": (_recall_parser, _recall),
    "calibrate": (_calibrate_parser, _calibrate),
    "propose": (_propose_parser, _propose),
    "data": (_data_parser, _data),
    "scenes": (_scenes_parser, _scenes),
}
