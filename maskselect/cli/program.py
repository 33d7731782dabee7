"""The commands. `maskselect` and `lightning` are this same program; `tools/*.py` call one verb each.

Imports happen inside the verbs, so that `--help` is instant. Bad input ends in one sentence on standard error and
status 2; set MASKSELECT_TRACEBACK=1 to see where it arose.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from maskselect.backends.optional import missing_package
from maskselect.cli import checking, importing, measuring, options, publishing, using
from maskselect.cli.failures import tell_left_out
from maskselect.cli.output import patient_output

TRAINING_VERBS = ("fit", "validate")
USAGE = """usage: {prog} VERB [options]

Training, with Lightning (fit --help tells all of its options):
  fit|validate -c CONFIG                 for example: {prog} fit -c configs/ras.yaml
  doctor -c CONFIG                       what such a run would lack, and how large it is, before it begins
  features -c CONFIG                     what is frozen, computed beforehand for all images of such a run
  merge LAST.CKPT                        the weights of a resumable checkpoint, in one file or in shards
  average A B ... --output FILE          the mean of the weights of several checkpoints

Use ({prog} VERB --help tells the options):
  predict --image FILE --prompt TEXT     select the masks that answer a prompt
  evaluate --model M --dataset D         measure a model on a data set
  calibrate --model M --dataset D        choose a model's threshold on validation samples
  compare A.json B.json                  two evaluations of the same samples, paired
  recall --proposer P --dataset D        the most that any selector can reach with a proposer's candidates
  propose --images DIR --output DIR      candidate masks for a folder of images
  data list                              the data sets that can be read, and where to get them
  data check NAME --root DIR             walk a data set: counts, missing images, damaged or empty masks
  data build NAME --output DIR           make maskgroups-2m or llm-seg40k out of other data sets
  import NAME SRC DST                    published weights (ras, llm-seg, llava, co-detr) into what we read
  push CHECKPOINT hf://ORG/NAME          publish a checkpoint with a model card on the Hugging Face hub
  make_scenes --output DIR --split S     generate scenes with prompts and ground truth
"""


@patient_output()
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
    if verb in TRAINING_VERBS:
        return _guarded(lambda: _train(arguments), f"{prog} {verb}")
    if verb not in VERBS:
        known = ", ".join(dict.fromkeys((*TRAINING_VERBS, *VERBS)))
        print(f"{prog}: error: unknown verb {verb!r}; expected one of {known}", file=sys.stderr)
        return 2
    return tool(verb, rest, f"{prog} {verb}")


@patient_output()
def tool(verb: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """One verb with its options, the command line's by default: what `tools/*.py` call."""
    make_parser, run = VERBS[verb]
    parser = make_parser(prog or Path(sys.argv[0]).name)
    asked = parser.parse_args(argv)
    return _guarded(lambda: run(asked), parser.prog)


def _train(arguments: list[str]) -> int:
    from maskselect.training.cli import run

    return tell_left_out(run(arguments), "images")


def _guarded(run: Callable[[], int], prog: str) -> int:
    """The status of `run`; errors that a user can cause become one sentence."""
    try:
        return run()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        if os.environ.get("MASKSELECT_TRACEBACK") or (isinstance(error, ModuleNotFoundError) and missing is None):
            raise
        sentence = missing or getattr(error, "listing", None) or using.sentence(error)
        print(f"{prog}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


VERBS: dict[str, tuple[Callable[[str], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
    "predict": (options.predict_parser, using.predict),
    "evaluate": (options.evaluate_parser, measuring.evaluate),
    "compare": (options.compare_parser, measuring.compare),
    "recall": (options.recall_parser, measuring.recall),
    "calibrate": (options.calibrate_parser, measuring.calibrate),
    "propose": (options.propose_parser, using.propose),
    "data": (options.data_parser, using.data),
    "import": (importing.import_parser, importing.import_weights),
    "doctor": (checking.doctor_parser, checking.doctor),
    "push": (publishing.push_parser, publishing.push),
    "make_scenes": (options.scenes_parser, using.scenes),
    "features": (checking.features_parser, checking.features),
    "merge": (checking.merge_parser, checking.merge),
    "average": (checking.average_parser, checking.average),
}
