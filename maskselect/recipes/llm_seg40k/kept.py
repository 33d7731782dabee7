"""Texts that were dear to make, such as a language model's answers: kept in files, so that none is paid for twice."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskselect.ops.atomic import write_text


class Kept:
    """A file a text, under what the text was made from.

    folder: theirs, made when the first is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, key: dict[str, Any], make: Callable[[], str]) -> str:
        """The text that is kept under `key`; what `make` gives where there is none, or its file is damaged.

        key: everything that the text depends on, as JSON holds it.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        file = self.folder / f"{digest[:32]}.json"
        try:
            return str(json.loads(file.read_bytes())["text"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            text = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(key | {"text": text}, indent=1), durable=True)
        return text
