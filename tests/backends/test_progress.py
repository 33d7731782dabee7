"""Bars: what is yielded, and the text that changes as the work goes on."""

import io
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
    monkeypatch.setattr(progress, "Console", lambda file: Console(file=screen, width=100, force_terminal=True))
    seen: list[int] = []
    note: Any = (lambda: f"Making, {sum(seen)} so far") if noted else None
    for item in progress.track(iter([1, 2, 3]), 3, "Making", "things", note):
        seen.append(item)
    assert seen == [1, 2, 3]
    told = screen.getvalue()
    assert "3/3" in told and "Making" in told and ("Making, 6 so far" in told) == noted


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2], None, "Making", note=lambda: "x")) == [1, 2]
    assert capsys.readouterr().err == ""
