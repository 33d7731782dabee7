"""Evaluation reports on disk, with the settings that made them."""

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
    "scenes-twins": "Generated scenes, prompts with references and their twins without",
}
_NEEDED = ("dataset", "split", "model", "samples", "images", "metrics")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation report on disk.

    Args:
        path: its file.
        report: the content, see `maskselect.evaluation.samples.build_report`.
        key: the key of its file of samples, see `maskselect.reports.records`; empty without that file.
    """

    path: Path
    report: Mapping[str, Any]
    key: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Title of the data set."""
        name = self.report["dataset"]
        return CATALOG[name].title if name in CATALOG else _TITLES.get(name, name)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the evaluated model, "" if unknown."""
        return str(self.key.get("model", ""))

    @property
    def pool(self) -> str:
        """Origin of the candidates, in words."""
        return str(self.report.get("protocol", {}).get("candidates", ""))

    @property
    def ground_truth_added(self) -> bool:
        """Whether the ground-truth masks were among the candidates."""
        return bool(self.report.get("ground_truth_candidates", self.key.get("with_gt", False)))

    @property
    def seed(self) -> int | None:
        """Seed of the generated scenes; None for other data, or if unknown."""
        return self.key.get("seed") if self.report["dataset"] in GENERATED else None

    def command(self, model: str) -> str:
        """The command line that reproduces the numbers with `model`.

        DIR stands for the folder of a data set, SEED for an unknown seed of generated scenes.
        """
        report, generated = self.report, self.report["dataset"] in GENERATED
        words = ["maskselect", "evaluate", "--model", model, "--dataset", report["dataset"], "--split", report["split"]]
        if generated and str(self.key.get("data", [None, None])[1]) == "None":
            words += ["--scenes", str(report["images"])]
            words += ["--seed", "SEED" if self.seed is None else str(self.seed)]
        else:
            words += ["--root", "DIR"]
        words += ["--limit", str(report["samples"])]
        if protocol := report.get("protocol", {}).get("name"):
            words += ["--protocol", protocol]
        words += ["--with-gt-candidates"] if self.ground_truth_added else []
        words += ["--refiner", report["refiner"]] if report.get("refiner") else []
        return shlex.join([*words, "--output", "report.json"])


def read_evaluation(path: Path) -> Evaluation:
    """Read a report of `maskselect evaluate`, and the key of its samples.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no report.
    """
    if not path.is_file():
        raise FileNotFoundError(f"report {path} is not there; expected what maskselect evaluate wrote")
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"report {path} is not valid JSON: {error}") from error
    absent = [name for name in _NEEDED if not isinstance(report, dict) or name not in report]
    if absent or not isinstance(report["metrics"], dict) or "overall" not in report["metrics"]:
        what = absent[0] if absent else "metrics of 'overall'"
        raise ValueError(f"report {path} has no {what}; expected what maskselect evaluate wrote")
    return Evaluation(path, report, _key(records_path(path)))


def refuse_replacing(path: Path, model: str, fingerprint: str) -> None:
    """Refuse to replace the report of another model, its samples, or a file that is no report.

    Args:
        path: the report to be written.
        model: name of the model, which decides if the weights are unknown.
        fingerprint: digest of the weights; "" if unknown.

    Raises:
        ValueError: `path` or the file of samples beside it belongs to something else.
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
    """The key in the first line of a file of samples, empty without the file. Raises ValueError if it is damaged."""
    if not records.is_file():
        return {}
    with records.open() as file:
        line = file.readline()
    try:
        key: Mapping[str, Any] = json.loads(line)["key"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{records} does not begin with a key; was it written by maskselect evaluate?") from error
    return key
