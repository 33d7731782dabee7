"""Samples and images that cannot be read and that a long run leaves out, with the reasons."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class LeftOut:
    """Samples or images that were left out.

    Attributes:
        reasons: one sentence by name.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, name: str, error: BaseException | str) -> None:
        """Add a name with its error."""
        self.reasons[name] = error if isinstance(error, str) else one_line(error)

    def by_reason(self) -> dict[str, list[str]]:
        """The names of each reason."""
        names: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            names.setdefault(reason, []).append(name)
        return names

    def as_json(self) -> dict[str, object]:
        """`count`, and `reasons`: a list of {reason, names}."""
        return {"count": len(self), "reasons": [{"reason": r, "names": n} for r, n in self.by_reason().items()]}


@contextmanager
def going_on(left_out: LeftOut | None, *names: str) -> Iterator[None]:
    """Catch a ValueError or OSError of the block and add `names` to `left_out`; raise it if `left_out` is None."""
    try:
        yield
    except (ValueError, OSError) as error:
        if left_out is None:
            raise
        for name in names:
            left_out.add(name, error)


def one_line(error: BaseException) -> str:
    """The message of an error as one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
