"""What a command that went on past bad input says at its end, and its exit status."""

import sys

from maskselect.structures.left_out import LeftOut

_TOLD = 20  # reasons that are told one by one


def tell_left_out(left_out: LeftOut, what: str) -> int:
    """Name on standard error what was left out, and give the exit status: 1 when there is any, else 0.

    what: what is counted, such as "samples".
    """
    if not left_out:
        return 0
    print(f"error: {len(left_out)} {what} were left out:", file=sys.stderr)
    reasons = left_out.by_reason()
    for reason, (first, *others) in list(reasons.items())[:_TOLD]:
        where = f" ({len(others) + 1} {what}, the first is {first})" if others else f" ({first})"
        print(f"  {reason}{where if others or first not in reason else ''}", file=sys.stderr)
    if len(reasons) > _TOLD:
        print(f"  and {len(reasons) - _TOLD} more reasons", file=sys.stderr)
    return 1
