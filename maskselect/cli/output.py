"""Output streams of the commands. A failing stream does not change a command's exit status."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class PatientStream:
    """A text stream that escapes what it cannot encode, and drops all output after its device fails.

    Args:
        stream: the wrapped stream.
        name: its name in the warning about a failure.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.described = stream, name
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, escape or drop a text. Returns its length."""
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
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream, unless its device failed."""
        if not self.broken:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def _end(self, error: Exception) -> None:
        """Drop all output. The stream gets the null device, since the interpreter flushes its buffer at exit."""
        self.broken = True
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        quiet = isinstance(error, ValueError | BrokenPipeError)  # the stream or its reader was closed
        if not quiet and sys.stderr is not self:
            print(f"warning: {self.described} cannot be written: {error}", file=sys.stderr)


@contextmanager
def patient_output(prog: str = "maskselect") -> Iterator[None]:
    """A block in which printing raises no error, and a warning of this package is one line that begins with `prog`."""
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
