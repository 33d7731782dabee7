"""Foreign names to ours and back, and what became of every tensor of a foreign checkpoint.

In a template `{n}` stands for a number, `{w}` for a word of letters and digits, and `{p}` for weight or bias. The n-th
of one side is the n-th of the other, so a map reads in both directions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_PLACES = {"{n}": r"(\d+)", "{w}": r"([A-Za-z0-9]+)", "{p}": "(weight|bias)"}
_SHOWN = 3  # names of each kind that an error shows


@dataclass
class ImportReport:
    """What became of every tensor.

    matched: foreign name to own names; what is learned on top of something published may go to two places.
    dropped: foreign name to the reason.  unknown: foreign names that no rule knows.
    missing: foreign names of what was expected and is not there.  reshaped: a line for each of another shape.
    doubled: a line for each that is another name of what was found already.
    """

    matched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ("matched", "dropped", "unknown", "missing", "reshaped", *(["doubled"] if self.doubled else []))
        counts = ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds)
        examples = [f"{kind}: {', '.join(getattr(self, kind)[:_SHOWN])}" for kind in kinds[2:] if getattr(self, kind)]
        return "; ".join([counts, *examples])

    def reasons(self) -> dict[str, int]:
        """Why tensors were left behind, and how many of each."""
        told = list(self.dropped.values())
        return {reason: told.count(reason) for reason in dict.fromkeys(told)}

    def check(self, origin: str, what: str) -> None:
        """Raise ValueError, with all counts and the first names, unless everything expected is there and all is known.

        what: was expected of the file `origin`.
        """
        if self.unknown or self.missing or self.reshaped or self.doubled:
            raise ValueError(f"checkpoint {origin} is not {what}: {self}")


@dataclass(frozen=True)
class NameMap:
    """Names of one release.

    templates: pairs of a foreign and an own name. Several may hold for a foreign name; of an own name the first counts.
    dropped: beginnings of foreign names, as regular expressions, and why they are not needed.
    """

    templates: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def own(self, foreign: str) -> tuple[str, ...]:
        """Our names of a foreign tensor, none when no template knows it."""
        found = (_renamed(foreign, source, target) for source, target in self.templates)
        return tuple(dict.fromkeys(name for name in found if name is not None))

    def foreign(self, own: str) -> str:
        """The foreign name of one of our tensors. Raises ValueError for a name that is not ours."""
        found = (_renamed(own, source, target) for target, source in self.templates)
        name = next((one for one in found if one is not None), None)
        if name is None:
            raise ValueError(f"{own!r} has no name in this release")
        return name

    def reason(self, foreign: str) -> str | None:
        """Why a foreign tensor is left behind, or None when it is not."""
        return next((why for pattern, why in self.dropped if re.match(pattern, foreign)), None)

    def account(
        self, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
    ) -> tuple[dict[str, str], ImportReport]:
        """For every own name the foreign one that fills it, and the report. Nothing is raised: see `ImportReport`.

        shapes: all that is expected, by own name.
        """
        report, found = ImportReport(), dict[str, str]()
        filled = set[str]()
        for foreign, tensor in tensors.items():
            reason = self.reason(foreign)
            if reason is not None:
                report.dropped[foreign] = reason
                continue
            names = tuple(name for name in self.own(foreign) if name in shapes)
            wrong = next((name for name in names if tensor.shape != shapes[name]), None)
            before = next((found[name] for name in names if name in found), None)
            filled.update(names)
            if not names:
                report.unknown.append(foreign)
            elif wrong is not None:
                report.reshaped.append(f"{foreign} is {_told(tensor.shape)}, expected {_told(shapes[wrong])}")
            elif before is not None:
                report.doubled.append(f"{before} and {foreign} are two names for one tensor")
            else:
                report.matched[foreign] = names
                found.update(dict.fromkeys(names, foreign))
        missing = (self.foreign(name) for name in shapes.keys() - filled)
        report.missing.extend(sorted(dict.fromkeys(missing)))
        return found, report


def _told(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _renamed(name: str, source: str, target: str) -> str | None:
    """`name`, which fits the template `source`, by the template `target`; None when it does not fit."""
    pattern = re.escape(source)
    for place, wanted in _PLACES.items():
        pattern = pattern.replace(re.escape(place), wanted)
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    for part in match.groups():
        target = re.sub(r"\{[nwp]\}", part, target, count=1)
    return target
