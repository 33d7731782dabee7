"""The report on bad input that a command skipped, and the exit status."""

import sys

from maskselect.structures.left_out import LeftOut


def report_left_out(left_out: LeftOut, what: str, headline: str = "were left out", shown: int = 20) -> int:
    """Name skipped input on standard error.

    Args:
        left_out: names and reasons.
        what: what the names are, such as "samples".
        headline: end of the first line.
        shown: maximum number of reasons.

    Returns:
        The exit status: 1 if anything was skipped, else 0.
    """
    if not left_out:
        return 0
    print(f"error: {len(left_out)} {what} {headline}:", file=sys.stderr)
    reasons = left_out.by_reason()
    for reason, (first, *others) in list(reasons.items())[:shown]:
        where = f" ({len(others) + 1} {what}, the first is {first})" if others else f" ({first})"
        print(f"  {reason}{where if others or first not in reason else ''}", file=sys.stderr)
    if len(reasons) > shown:
        print(f"  and {len(reasons) - shown} more reasons", file=sys.stderr)
    return 1
