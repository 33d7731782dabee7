"""Commands that measure: evaluate, calibrate, compare, recall. Each imports its parts when it runs."""

import argparse
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskselect.cli import loading
from maskselect.cli.failures import report_left_out
from maskselect.structures.left_out import LeftOut

if TYPE_CHECKING:
    from maskselect.data.video_writer import Writer
    from maskselect.predictor import Model
    from maskselect.structures.sample import Sample
    from maskselect.structures.video import VideoSample


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate a model on data sets, with one report each. An interrupted run continues."""
    from maskselect.evaluation.semantic import SEMANTIC_DATASETS
    from maskselect.evaluation.videos import VIDEO_DATASETS
    from maskselect.reports.evaluated import refuse_replacing
    from maskselect.reports.files import output_folder

    with output_folder(options.output.absolute().parent):
        if len(options.dataset) == 1 and options.dataset[0] in VIDEO_DATASETS:
            return _evaluate_videos(options)
        if options.submission is not None:
            raise ValueError(f"--submission is for one data set of videos: {', '.join(VIDEO_DATASETS)}")
        if len(options.dataset) == 1 and options.dataset[0] in SEMANTIC_DATASETS:
            return _evaluate_classes(options)
        left_out = {name: LeftOut() for name in options.dataset}
        opened = {name: _samples(options, name, left_out[name]) for name in options.dataset}
        outputs = {name: options.output for name in opened}
        if len(opened) > 1:
            outputs = {n: options.output.with_stem(f"{options.output.stem}-{n}") for n in opened}
        model = loading.load_model(options)
        for output in outputs.values():
            if not options.overwrite:
                refuse_replacing(output, options.model, model.facts().fingerprint)
        for name, (samples, total) in opened.items():
            _evaluate_one(options, model, name, samples, total, outputs[name], left_out[name])
    return max(report_left_out(missed, f"samples of {name}") for name, missed in left_out.items())


def _evaluate_videos(options: argparse.Namespace) -> int:
    from maskselect.evaluation import videos
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_video_report

    (name,), left_out, path = options.dataset, LeftOut(), options.submission
    protocol = videos.protocol_of_videos(name, options.protocol, path)
    samples = videos.open_videos(
        name, options.root, options.split, options.limit, options.scenes, options.seed, without_masks=path is not None
    )
    model = loading.load_model(options)
    facts = model.facts()
    entries = {"dataset": name, "split": options.split, "model": options.model, "refiner": facts.refiner}
    rules = {"protocol": videos.describe_protocol(protocol)}
    _refuse_replacing(options, entries | rules, "the report of this model on this data by this protocol")
    writer = None
    if path is not None:
        of_model = entries | {"fingerprint": facts.fingerprint, "threshold": model.clip_threshold}
        writer = videos.open_submission(path, name, of_model | {"seed": options.seed})
    report = videos.evaluate_videos(
        model,
        samples,
        dataset=name,
        split=options.split,
        model_name=options.model,
        protocol=protocol,
        submission=writer,
        left_out=left_out,
        seed=options.seed,
    )
    write_json(report, options.output)
    print_video_report(report)
    print(f"report: {options.output}")
    if writer is not None:
        _finish_submission(writer, path, samples, left_out)
    return report_left_out(left_out, f"samples of {name}")


def _finish_submission(writer: "Writer", path: Path, samples: "Sequence[VideoSample]", left_out: LeftOut) -> None:
    """Pack the answers if a file is wanted and every sample has one."""
    if writer.root != path and not left_out:
        writer.pack(samples, path)
        print(f"answers: {path}, packed from {writer.root}")
        return
    missing = "" if writer.root == path else f"; {path} is not written, because samples were left out"
    print(f"answers: {writer.root}{missing}")


def _evaluate_classes(options: argparse.Namespace) -> int:
    from maskselect.evaluation.semantic import evaluate_classes, open_label_maps
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_semantic_report

    (name,), left_out = options.dataset, LeftOut()
    classes, images, total = open_label_maps(
        name,
        options.root,
        options.split,
        limit=options.limit,
        scenes=options.scenes,
        seed=options.seed,
        left_out=left_out,
    )
    model = loading.load_model(options)
    entries = {"dataset": name, "split": options.split, "model": options.model, "refiner": model.facts().refiner}
    _refuse_replacing(options, entries, "the report of this model on this data")
    report = evaluate_classes(
        model,
        images,
        classes,
        dataset=name,
        split=options.split,
        model_name=options.model,
        total=total,
        seed=options.seed,
        left_out=left_out,
    )
    write_json(report, options.output)
    print_semantic_report(report)
    print(f"report: {options.output}")
    return report_left_out(left_out, f"images of {name}")


def _evaluate_one(
    options: argparse.Namespace,
    model: "Model",
    name: str,
    samples: "Iterable[Sample]",
    total: int | None,
    output: Path,
    left_out: LeftOut,
) -> None:
    """Score the samples without a record, then write report, records and page.

    Raises:
        ValueError: no sample could be scored.
    """
    from maskselect.evaluation.run import full_report, protocol_of
    from maskselect.evaluation.samples import score_samples
    from maskselect.metrics.referring import RULES_VERSION
    from maskselect.ops.atomic import write_text
    from maskselect.reports.cases import CaseKeeper
    from maskselect.reports.files import write_json
    from maskselect.reports.page import draw_page
    from maskselect.reports.records import RecordFile, records_path
    from maskselect.reports.table import print_report

    protocol = options.protocol or protocol_of(name)
    settings = {"seed": options.seed, "with_gt": options.with_gt_candidates, "protocol": protocol}
    settings |= {"rules": RULES_VERSION}  # other rules score all samples again
    settings |= {"added_score": "median"} if options.with_gt_candidates else {}
    key = {"model": model.facts().fingerprint, "data": [name, str(options.root), options.split]} | settings
    keeper, pictures, ids = CaseKeeper(), output.with_suffix(".cases.json"), set[str]()

    def unique() -> "Iterator[Sample]":
        for sample in samples:
            if sample.sample_id in ids:
                left_out.add(f"another sample {sample.sample_id}", "two samples have one id; expected one each")
                continue
            ids.add(sample.sample_id)
            yield sample

    with RecordFile(records_path(output), key) as records:
        if records.rows and pictures.is_file():
            keeper.load(pictures)
        scored = score_samples(
            model,
            unique(),
            total=total,
            what=f"{name} {options.split}",
            with_gt=options.with_gt_candidates,
            protocol=protocol,
            done=[row.sample_id for row in records.rows],
            watch=keeper.watch,
            left_out=left_out,
        )
        try:
            for row in scored:
                records.add(row)
        finally:
            keeper.save(pictures)
    rows = [row for row in records.rows if row.sample_id in ids]
    report = full_report(
        model, rows, name, options.split, options.model, options.with_gt_candidates, protocol, options.seed, left_out
    )
    write_json(report, output)
    write_text(output.with_suffix(".html"), draw_page(report, rows, keeper.cases(), _command(options)))
    print_report(report)
    print(f"report: {output}, page: {output.with_suffix('.html')}")


def _command(options: argparse.Namespace) -> str:
    """The command line of the evaluation, for the page."""
    words = ["tools/evaluate.py", "--model", str(options.model), "--dataset", *options.dataset]
    for name in ("split", "root", "limit", "scenes", "seed", "protocol", "refiner"):
        value = vars(options)[name]
        words += [f"--{name}", str(value)] if value not in (None, "") else []
    return shlex.join(words + (["--with-gt-candidates"] if options.with_gt_candidates else []))


def compare(options: argparse.Namespace) -> int:
    """Compare two evaluations of the same samples, in pairs."""
    from maskselect.reports.compare import compare, print_comparison
    from maskselect.reports.files import write_json
    from maskselect.reports.records import in_order, read_records

    entries = {"first": str(options.first), "second": str(options.second)}
    _refuse_replacing(options, entries, "a comparison of these two")
    first, second = in_order(read_records(options.first), read_records(options.second))
    comparison = entries | compare(first, second, options.cases)
    print_comparison(comparison, str(options.first), str(options.second))
    if options.output is not None:
        write_json(comparison, options.output)
    return 0


def recall(options: argparse.Namespace) -> int:
    """Measure the oracle and the recall of a proposer's candidates."""
    from maskselect.evaluation.leakage import candidates_overlaps
    from maskselect.evaluation.samples import measure_ceiling
    from maskselect.proposers.loading import load_proposer
    from maskselect.proposers.store import StoredProposer, proposer_key
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_ceiling
    from maskselect.structures.provenance import trained_on

    left_out = LeftOut()
    (samples, total), images = _samples(options, options.dataset, left_out), dict[str, None]()

    def noted() -> "Iterator[Sample]":
        for sample in samples:
            images[sample.image_id] = None
            yield sample

    proposer = load_proposer(options.proposer, options.device)
    entries = {"dataset": options.dataset, "split": options.split, "proposer": proposer_key(proposer)}
    if options.proposals is not None:
        proposer = StoredProposer(proposer, options.proposals)
    _refuse_replacing(options, entries, "the oracle of this proposer on this data")
    ceiling = measure_ceiling(proposer, noted(), total, left_out)
    overlap = candidates_overlaps(trained_on(proposer), options.dataset, options.split, options.seed, images)
    print_ceiling(ceiling, f"{options.proposer} on {options.dataset} {options.split}")
    for sentence in overlap:
        print(f"Beware: {sentence}.")
    if options.output is not None:
        write_json(entries | ceiling | {"overlap": overlap, "left_out": left_out.as_json()}, options.output)
    return report_left_out(left_out, "samples")


def calibrate(options: argparse.Namespace) -> int:
    """Choose a threshold on validation samples, and store it with `--write`."""
    from maskselect.backends.checkpoints import change_card, find_checkpoint
    from maskselect.evaluation.calibration import choose, sweep, sweep_clips
    from maskselect.evaluation.videos import VIDEO_DATASETS, open_videos
    from maskselect.reports.files import write_json
    from maskselect.reports.table import print_thresholds
    from maskselect.scenes.asking import GENERATED
    from maskselect.systems import named_models

    data: dict[str, Any] = {"dataset": options.dataset, "split": options.split}
    data |= {} if options.refiner is None else {"refiner": options.refiner}
    entries = {"model": str(options.model), **data}
    _refuse_replacing(options, entries, "the thresholds of this model on this data")
    if options.write and named_models.is_named(options.model):
        raise ValueError(f"--write is for the card of a checkpoint; set `threshold` in a config like {options.model}")
    if options.write:
        find_checkpoint(options.model)  # fails before the work if the card is on the hub, where it cannot be changed
    left_out, of_clips = LeftOut(), options.dataset in VIDEO_DATASETS
    if of_clips:
        clips = open_videos(options.dataset, options.root, options.split, options.limit, options.scenes, options.seed)
        reports = sweep_clips(loading.load_model(options), clips, options.dataset, left_out)
    else:
        samples, total = _samples(options, options.dataset, left_out)
        reports = sweep(loading.load_model(options), samples, total, left_out)
    if options.output is not None:
        write_json({str(threshold): entries | row for threshold, row in reports.items()}, options.output)
    chosen = choose(reports, options.least_n_acc, "all" if of_clips else "F1")
    print_thresholds(reports, chosen)
    if options.write:
        used = {"samples": reports[chosen]["samples"], "limit": options.limit}
        used |= {"root": options.root and str(options.root)}
        used |= {"seed": options.seed if options.dataset in GENERATED else None}
        data |= {name: value for name, value in used.items() if value is not None}
        key = "clip_threshold" if of_clips else "threshold"
        rule = {f"{key}_from": data | {"least_n_acc": options.least_n_acc}}
        print(f"{key} {chosen} -> {change_card(options.model, {key: chosen} | rule)}")
    return report_left_out(left_out, "samples")


def _refuse_replacing(options: argparse.Namespace, entries: Mapping[str, Any], what: str) -> None:
    """Raise ValueError if `--output` holds something else; see `reports.files.refuse_replacing_other`."""
    from maskselect.reports.files import refuse_replacing_other

    if options.output is not None and not options.overwrite:
        refuse_replacing_other(options.output, entries, what)


def _samples(options: argparse.Namespace, name: str, left_out: LeftOut) -> "tuple[Iterator[Sample], int | None]":
    from maskselect.evaluation.questions import open_samples

    return open_samples(
        name,
        options.root,
        options.split,
        limit=options.limit,
        reference_column=options.reference_column,
        scenes=options.scenes,
        seed=options.seed,
        left_out=left_out,
    )
