"""What commands print: it never decides whether they succeed, since what they do is done when they say so."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class PatientStream:
    """A text stream that writes what it can: anything it cannot encode is escaped, and a broken device ends it quietly.

    Everything else is the stream's own.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name_in_words = stream, name
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, escape or drop a text; its length."""
        if not self.broken:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                encoding = self.stream.encoding or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self._end(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Bring everything to the device, if there still is one."""
        if not self.broken:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def _end(self, error: Exception) -> None:
        """What is still buffered goes nowhere, or the interpreter would fail with it at its end."""
        self.broken = True
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        quiet = isinstance(error, ValueError | BrokenPipeError)  # it was closed, here or at its other end
        if not quiet and sys.stderr is not self:
            print(f"warning: {self.name_in_words} cannot be written: {error}", file=sys.stderr)


@contextmanager
def patient_output(prog: str = "maskselect") -> Iterator[None]:
    """Within, no printing raises an error, and our own warnings are one line each.

    prog: what such a line begins with.
    """
    before = sys.stdout, sys.stderr, warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
        if category.__module__.startswith("maskselect."):
            print(f"{prog}: warning: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            before[2](message, category, *place, **options)

    if before[0] is not None and not isinstance(before[0], PatientStream):
        sys.stdout = PatientStream(before[0], "standard output")  # type: ignore[assignment]
    if before[1] is not None and not isinstance(before[1], PatientStream):
        sys.stderr = PatientStream(before[1], "standard error")  # type: ignore[assignment]
    warnings.showwarning = show
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr, warnings.showwarning = before
