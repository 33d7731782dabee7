#!/usr/bin/env python3
"""Writes docs/guide/cli.md from the options of every verb. tests/test_docs.py fails if the page is out of date.

The source are the parsers, because the layout of `--help` depends on the version of Python.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _environment  # noqa: F401  finds the repository's own environment

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "cli.md"
HEAD = """# Command line

<!-- Written by tools/_write_cli_reference.py; do not edit. -->

`maskselect VERB`, `lightning VERB` and `python -m maskselect VERB` are the same program. A script in `tools/`, such as
`tools/predict.py`, runs the verb of its name. `maskselect VERB --help` prints the options.

Exit statuses: 0 done; 1 some images of a batch failed, or problems were found; 2 bad input, with one sentence on
standard error. `maskselect --version` prints the version.

## fit, validate

```
maskselect fit -c CONFIG [-c OVERLAY ...] [--any.setting VALUE ...]
```

Trains or validates with Lightning. `maskselect fit --help` prints every option; these matter most:

| option | meaning |
|---|---|
| `-c CONFIG` | a file, or the name of a shipped config such as `ras.yaml`; may be repeated, later ones replace values |
| `--output DIR` | folder of logs, checkpoints and weights |
| `--every N` | steps between resumable checkpoints |
| `--ckpt_path FILE` | resume from this checkpoint; `last` means `last.ckpt` in the output folder |
| `--seed_everything N` | seed of the run |
| `--trainer.NAME VALUE` | an argument of Lightning's `Trainer` |
| `--model.NAME VALUE` | learning rate, schedule, optimizer; `--model.task` is the learner |
| `--data.init_args.NAME VALUE` | an argument of the data module |
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference())


def reference() -> str:
    """The whole page."""
    from maskselect.cli.program import VERBS  # noqa: PLC0415  after `_environment`

    sections = [line for verb, (make, _) in VERBS.items() for line in _section(make(f"maskselect {verb}"), 2)]
    return HEAD + "\n".join(["", *sections])


def _section(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield f"{'#' * level} {parser.prog.removeprefix('maskselect ')}\n"
    if parser.description:
        yield " ".join(parser.description.split()) + "\n"
    if not verbs:
        yield f"```\n{parser.usage or _usage(parser)}\n```\n"
    shown = [action for action in parser._actions if action not in verbs and action.dest != "help"]
    if shown:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| {_cell(f'`{_names(action)}`')} | {_cell(_meaning(action))} |" for action in shown)
        yield ""
    for action in verbs:
        for inner in action.choices.values():
            yield from _section(inner, level + 1)


def _usage(parser: argparse.ArgumentParser) -> str:
    """The program with its required options; "[options]" stands for the rest."""
    words, grouped = [parser.prog], set[int]()
    for group in parser._mutually_exclusive_groups:
        if group.required:
            words.append(f"({' | '.join(_names(action) for action in group._group_actions)})")
        grouped |= {id(action) for action in group._group_actions}
    required = [action for action in parser._actions if action.required and id(action) not in grouped]
    words += [_names(action) for action in required if action.option_strings]
    words += ["[options]"] + [_names(action) for action in required if not action.option_strings]
    return " ".join(words)


def _names(action: argparse.Action) -> str:
    value = _value(action)
    return f"{', '.join(action.option_strings)} {value}".strip() if action.option_strings else value


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    metavar: Any = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else None)
    name = str(metavar or (action.dest.upper() if action.option_strings else action.dest))
    return f"{name} [{name} ...]" if action.nargs in ("+", "*") else name


def _meaning(action: argparse.Action) -> str:
    text = " ".join((action.help or "").split()) % (vars(action) | {"prog": "maskselect"})
    text = re.sub(r"<[\w-]+>", r"`\g<0>`", text)  # not an HTML tag
    return f"required; {text}".rstrip("; ") if action.option_strings and action.required else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
