"""What a long run goes on without: samples and images that cannot be read, each with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class LeftOut:
    """Samples or images that were left out.

    reasons: by name, one sentence each.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, name: str, error: BaseException | str) -> None:
        """One more."""
        self.reasons[name] = error if isinstance(error, str) else one_line(error)

    def by_reason(self) -> dict[str, list[str]]:
        """The names that each reason holds for."""
        found: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            found.setdefault(reason, []).append(name)
        return found

    def as_json(self) -> dict[str, object]:
        """`count`, and `reasons`: a list of {reason, names}."""
        return {"count": len(self), "reasons": [{"reason": r, "names": n} for r, n in self.by_reason().items()]}


@contextmanager
def going_on(left_out: LeftOut | None, *names: str) -> Iterator[None]:
    """A block after whose ValueError or OSError the run goes on without `names`; without `left_out` it raises."""
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
