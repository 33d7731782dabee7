"""What lies beside the shards of proposals about who made them: `proposer.json`.

It holds `proposer`, the hash that every row carries, and `trained_on`, what that proposer's weights learned from (see
`structures.provenance`), so that results with stored candidates can be judged without the proposer.
"""

import json
from dataclasses import asdict
from pathlib import Path

from maskselect.structures.protocols import Proposer
from maskselect.structures.provenance import Provenance, trained_on

NOTE = "proposer.json"


def to_note(identity: str, proposer: Proposer) -> str:
    """The file's text. identity: the hash."""
    return json.dumps({"proposer": identity, "trained_on": [asdict(one) for one in trained_on(proposer)]}, indent=1)


def read_note(folder: Path) -> tuple[Provenance, ...]:
    """What is told of the proposer of a folder's proposals; nothing where there is no such file.

    Raises ValueError when it is damaged.
    """
    file = folder / NOTE
    if not file.is_file():
        return ()
    try:
        return tuple(Provenance.from_json(one) for one in json.loads(file.read_text())["trained_on"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error!r}; expected what `propose` writes beside its shards") from error
