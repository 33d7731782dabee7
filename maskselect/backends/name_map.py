"""Maps foreign tensor names to ours and back, and reports on every tensor of a foreign checkpoint.

In a template `{n}` matches a number, `{w}` a word of letters and digits, and `{p}` weight or bias. Placeholders of both
sides correspond in order, so a map works in both directions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_PLACEHOLDERS = {"{n}": r"(\d+)", "{w}": r"([A-Za-z0-9]+)", "{p}": "(weight|bias)"}
_SHOWN = 3  # names of each kind in an error


@dataclass
class ImportReport:
    """A report on every tensor of a foreign checkpoint.

    Attributes:
        matched: foreign name to our names; one tensor may fill two places.
        dropped: foreign name to the reason.
        unknown: foreign names that no template matches.
        missing: foreign names of expected tensors that are absent.
        reshaped: a line for each tensor of another shape.
        doubled: a line for each second name of a tensor.
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
        """The reasons of dropped tensors, and the number of tensors for each."""
        return dict(Counter(self.dropped.values()))

    def check(self, origin: str, what: str) -> None:
        """Check that the file `origin` is `what`.

        Raises:
            ValueError: a tensor is unknown, missing, doubled or of another shape. The message has all counts and the
                first names.
        """
        if self.unknown or self.missing or self.reshaped or self.doubled:
            raise ValueError(f"checkpoint {origin} is not {what}: {self}")


@dataclass(frozen=True)
class NameMap:
    """The tensor names of one release.

    Attributes:
        templates: pairs of a foreign and one of our names. Several may match a foreign name; the first one that matches
            our name applies.
        dropped: prefixes of foreign names, as regular expressions, and the reason why they are not needed.
    """

    templates: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def own(self, foreign: str) -> tuple[str, ...]:
        """Our names of a foreign tensor; none if no template matches."""
        names = (_renamed(foreign, source, target) for source, target in self.templates)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def foreign(self, own: str) -> str:
        """The foreign name of one of our tensors. Raises ValueError if no template matches."""
        names = (_renamed(own, source, target) for target, source in self.templates)
        name = next((name for name in names if name is not None), None)
        if name is None:
            raise ValueError(f"{own!r} has no name in this release")
        return name

    def reason(self, foreign: str) -> str | None:
        """The reason why a foreign tensor is dropped; None if it is not."""
        return next((reason for pattern, reason in self.dropped if re.match(pattern, foreign)), None)

    def account(
        self, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
    ) -> tuple[dict[str, str], ImportReport]:
        """Match tensors with expected shapes.

        Args:
            tensors: by foreign name.
            shapes: expected shapes by our name.

        Returns:
            The foreign name for each of our names, and the report, which is not checked.
        """
        report, sources = ImportReport(), dict[str, str]()
        filled = set[str]()
        for foreign, tensor in tensors.items():
            reason = self.reason(foreign)
            if reason is not None:
                report.dropped[foreign] = reason
                continue
            names = tuple(name for name in self.own(foreign) if name in shapes)
            wrong = next((name for name in names if tensor.shape != shapes[name]), None)
            before = next((sources[name] for name in names if name in sources), None)
            filled.update(names)
            if not names:
                report.unknown.append(foreign)
            elif wrong is not None:
                report.reshaped.append(f"{foreign} is {_text(tensor.shape)}, expected {_text(shapes[wrong])}")
            elif before is not None:
                report.doubled.append(f"{before} and {foreign} are two names for one tensor")
            else:
                report.matched[foreign] = names
                sources.update(dict.fromkeys(names, foreign))
        missing = (self.foreign(name) for name in shapes.keys() - filled)
        report.missing.extend(sorted(dict.fromkeys(missing)))
        return sources, report


def _text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _renamed(name: str, source: str, target: str) -> str | None:
    """`name` in the form of template `target`; None if it does not match template `source`."""
    pattern = re.escape(source)
    for placeholder, group in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), group)
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    for part in match.groups():
        target = re.sub(r"\{[nwp]\}", part, target, count=1)
    return target
