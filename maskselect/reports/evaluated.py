"""An evaluation report as it lies on disk, with what is known of how it was made."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskselect.data.catalog import CATALOG
from maskselect.reports.records import records_path
from maskselect.scenes.asking import GENERATED

_TITLES = {
    "scenes": "Generated scenes",
    "scenes-reasoning": "Generated scenes, reasoning prompts",
    "scenes-unknown": "Generated scenes, prompts with words that they never show",
}
_NEEDED = ("dataset", "split", "model", "samples", "images", "metrics")


@dataclass(frozen=True)
class Evaluation:
    """A report.

    path: its file.  report: what `maskselect.evaluation.samples.build_report` gives.
    made: the key of the samples beside it, see `maskselect.reports.records`; empty where they are not there.
    """

    path: Path
    report: Mapping[str, Any]
    made: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The data set's own title."""
        name = self.report["dataset"]
        return CATALOG[name].title if name in CATALOG else _TITLES.get(name, name)

    @property
    def fingerprint(self) -> str:
        """Of the model that was asked, "" where it is not known."""
        return str(self.made.get("model", ""))

    @property
    def pool(self) -> str:
        """Where the candidates came from."""
        return str(self.report.get("protocol", {}).get("candidates", ""))

    @property
    def ground_truth_added(self) -> bool:
        """Whether the ground-truth masks were among the candidates, which no model has in use."""
        return bool(self.report.get("ground_truth_candidates", self.made.get("with_gt", False)))

    @property
    def seed(self) -> int | None:
        """Of generated scenes; None where the report is of others, or it is not known."""
        return self.made.get("seed") if self.report["dataset"] in GENERATED else None

    def command(self, model: str) -> str:
        """What to type to get the same numbers of `model`.

        DIR stands for the folder of a data set, SEED for that of generated scenes where it is not known any more.
        """
        report, generated = self.report, self.report["dataset"] in GENERATED
        words = ["maskselect", "evaluate", "--model", model, "--dataset", report["dataset"], "--split", report["split"]]
        if generated and str(self.made.get("data", [None, None])[1]) == "None":
            words += ["--scenes", str(report["images"])]
            words += ["--seed", "SEED" if self.seed is None else str(self.seed)]
        else:
            words += ["--root", "DIR"]
        words += ["--limit", str(report["samples"])]
        if protocol := report.get("protocol", {}).get("name"):
            words += ["--protocol", protocol]
        words += ["--with-gt-candidates"] if self.ground_truth_added else []
        return shlex.join([*words, "--output", "report.json"])


def read_evaluation(path: Path) -> Evaluation:
    """What `maskselect evaluate` wrote to `path`, with the samples beside it where they are still there.

    Raises FileNotFoundError when there is no such file, ValueError when it is damaged or is no report.
    """
    if not path.is_file():
        raise FileNotFoundError(f"report {path} is not there; expected what maskselect evaluate wrote")
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"report {path} is not valid JSON: {error}") from error
    lacks = [name for name in _NEEDED if not isinstance(report, dict) or name not in report]
    if lacks or not isinstance(report["metrics"], dict) or "overall" not in report["metrics"]:
        told = lacks[0] if lacks else "metrics of 'overall'"
        raise ValueError(f"report {path} has no {told}; expected what maskselect evaluate wrote")
    return Evaluation(path, report, _key(records_path(path)))


def refuse_replacing(path: Path, model: str, fingerprint: str) -> None:
    """Raises ValueError when `path`, or the samples beside it, is what another model's evaluation wrote, or no report.

    model: the name it was asked for by, which decides where no samples tell the weights.
    fingerprint: of the weights; "" where they are not known.
    """
    remedy = "expected another --output, or --overwrite to replace it"
    try:
        report = read_evaluation(path).report if path.is_file() else None
        known = str(_key(records_path(path)).get("model", ""))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    other = report["model"] if report is not None else "unknown name"
    if known and fingerprint:
        if known != fingerprint:
            raise ValueError(f"{path} holds the evaluation of other weights ({other}); {remedy}")
    elif report is not None and other != model:
        raise ValueError(f"{path} holds the report of another model, {other}; {remedy}")


def _key(records: Path) -> Mapping[str, Any]:
    """The first line of a file of samples. Raises ValueError when it is damaged."""
    if not records.is_file():
        return {}
    with records.open() as file:
        line = file.readline()
    try:
        found: Mapping[str, Any] = json.loads(line)["key"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{records} does not begin with a key; was it written by maskselect evaluate?") from error
    return found
