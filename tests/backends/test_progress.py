"""Bars: what is yielded, and the text that changes as the work goes on."""

import io
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from rich.console import Console

from maskselect.backends import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("noted", [False, True])
def test_a_bar_yields_what_it_is_given_and_tells_what_is_new(noted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress, "Console", lambda file, quiet: Console(file=screen, width=100, force_terminal=True))
    seen: list[int] = []
    note: Any = (lambda: f"Making, {sum(seen)} so far") if noted else None
    for item in progress.track(iter([1, 2, 3]), 3, "Making", "things", note):
        seen.append(item)
    assert seen == [1, 2, 3]
    told = screen.getvalue()
    assert "3/3" in told and "Making" in told and ("Making, 6 so far" in told) == noted


def test_the_rate_is_that_of_the_whole_run_where_work_comes_in_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shards of four, each whole at once a minute after the other, as Ray gives them: 8 in two minutes."""
    screen, now = Terminal(), [1000.0]
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress, "Console", lambda file, quiet: Console(file=screen, width=100, force_terminal=True))
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    def made() -> Iterator[int]:
        for item in range(8):
            now[0] += 60 if item % 4 == 0 else 0.001
            yield item

    assert list(progress.track(made(), 12, "Making", "things", lambda: "Making")) == list(range(8))
    last = screen.getvalue().rpartition("8/12")[2]
    assert "0.1 things/s 0:01:00" in last


def test_a_bar_within_another_one_is_a_line_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress, "Console", lambda file, quiet: Console(file=screen, width=100, force_terminal=True))
    for _ in progress.track([1, 2], 2, "Videos", "videos"):
        assert list(progress.track([3, 4, 5], 3, "Frames", "frames")) == [3, 4, 5]
        broken = progress.track([3, 4], 2, "Broken", "frames")
        assert isinstance(broken, Generator) and next(broken) == 3
        broken.close()  # as after an error
    written = screen.getvalue()
    last = written[written.rindex("Videos") :]
    assert "2/2" in last and "Frames" not in last and "Broken" not in last  # only the outer line stays
    assert list(progress.track([6], 1, "After", "things")) == [6]
    last = screen.getvalue()[len(written) :]
    assert "After" in last and "1/1" in last and "Videos" not in last


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2], None, "Making", note=lambda: "x")) == [1, 2]
    assert capsys.readouterr().err == ""
