"""The commands. `maskselect` and `lightning` are this same program; `tools/*.py` run one verb each.

Verbs import their parts when they run, so that `--help` is instant. Bad input ends with one sentence on standard error
and status 2; MASKSELECT_TRACEBACK=1 shows the traceback.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from maskselect.backends.optional import missing_package
from maskselect.cli import checking, downloading, exporting, importing, measuring, options, publishing, serving, using
from maskselect.cli.failures import report_left_out
from maskselect.cli.output import patient_output
from maskselect.structures.left_out import one_line

TRAINING_VERBS = ("fit", "validate")
USAGE = """usage: {prog} VERB [options]

Training, with Lightning (fit --help prints all of its options):
  fit|validate -c CONFIG                 for example: {prog} fit -c configs/ras.yaml
  doctor -c CONFIG                       what such a run lacks and its size, before it starts
  doctor --models                        whether this machine can run photos-small and the like
  features -c CONFIG                     compute the frozen features of such a run in advance
  merge LAST.CKPT                        weights of a resumable checkpoint, one file or shards
  average A B ... --output FILE          average the weights of several checkpoints

Use ({prog} VERB --help prints the options):
  predict --image FILE --prompt TEXT     select the masks that answer a prompt
  serve                                  a page for pictures and videos; X-AnyLabeling's remote protocol
  evaluate --model M --dataset D         evaluate a model on a data set
  calibrate --model M --dataset D        choose a model's threshold on validation samples
  compare A.json B.json                  compare two evaluations of the same samples
  recall --proposer P --dataset D        oracle and recall of a proposer's candidates
  propose --images DIR --output DIR      store candidates for a folder of images
  data list                              the data sets that can be read, and where to get them
  data check NAME --root DIR             check a data set: counts, missing images, damaged or empty masks
  data build NAME --output DIR           build maskgroups-2m or llm-seg40k from other data sets
  download NAME                          public weights of photos-fast, photos-small or photos-base
  import NAME SRC DST                    convert published weights (ras, llm-seg, llava, co-detr)
  push CHECKPOINT hf://ORG/NAME          publish a checkpoint with a model card on the Hugging Face hub
  export --onnx DIR                      write compact RAS and its SAM as ONNX files
  make_scenes --output DIR --split S     generate scenes with prompts and ground truth
"""


@patient_output()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one command.

    Args:
        argv: verb and options; None for those of the command line.
        prog: name of the program in messages; None for that of the command line.

    Returns:
        The exit status: 0 done, 1 some images of a batch failed, 2 bad input.
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
    if verb in TRAINING_VERBS:
        return _guarded(lambda: _train(arguments), f"{prog} {verb}")
    if verb not in VERBS:
        known = ", ".join((*TRAINING_VERBS, *VERBS))
        print(f"{prog}: error: unknown verb {verb!r}; expected one of {known}", file=sys.stderr)
        return 2
    return tool(verb, rest, f"{prog} {verb}")


@patient_output()
def tool(verb: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one verb; `tools/*.py` call this. See `main`."""
    make_parser, run = VERBS[verb]
    parser = make_parser(prog or Path(sys.argv[0]).name)
    parsed = parser.parse_args(argv)
    return _guarded(lambda: run(parsed), parser.prog)


def _train(arguments: list[str]) -> int:
    from maskselect.training.cli import run

    return report_left_out(run(arguments), "images")


def _guarded(run: Callable[[], int], prog: str) -> int:
    """The status of `run`; an error that a user can cause becomes one sentence."""
    try:
        return run()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        if os.environ.get("MASKSELECT_TRACEBACK") or (isinstance(error, ModuleNotFoundError) and missing is None):
            raise
        from maskselect.doctor.listing import MissingError

        message = str(error) if isinstance(error, MissingError) else one_line(error)
        print(f"{prog}: error: {missing or message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


VERBS: dict[str, tuple[Callable[[str], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
    "predict": (options.predict_parser, using.predict),
    "serve": (serving.serve_parser, serving.serve),
    "evaluate": (options.evaluate_parser, measuring.evaluate),
    "compare": (options.compare_parser, measuring.compare),
    "recall": (options.recall_parser, measuring.recall),
    "calibrate": (options.calibrate_parser, measuring.calibrate),
    "propose": (options.propose_parser, using.propose),
    "data": (options.data_parser, using.data),
    "import": (importing.import_parser, importing.import_weights),
    "download": (downloading.download_parser, downloading.download),
    "doctor": (checking.doctor_parser, checking.doctor),
    "push": (publishing.push_parser, publishing.push),
    "export": (exporting.export_parser, exporting.export),
    "make_scenes": (options.scenes_parser, using.scenes),
    "features": (checking.features_parser, checking.features),
    "merge": (checking.merge_parser, checking.merge),
    "average": (checking.average_parser, checking.average),
}
