"""Whether the command `lightning` is this package's: litserve and lightning-sdk install one of the same name."""

import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

_OURS = "maskselect.cli"


def foreign_lightning(scripts: Path | None = None) -> str | None:
    """A sentence if the installed script `lightning` belongs to another package; None if it is ours or absent.

    Args:
        scripts: folder of scripts; None for that of this environment.
    """
    folder = Path(sysconfig.get_path("scripts")) if scripts is None else scripts
    file = next((file for file in (folder / "lightning", folder / "lightning.exe") if file.is_file()), None)
    if file is None or _OURS.encode() in file.read_bytes():
        return None
    others = {
        entry.dist.name
        for entry in entry_points(group="console_scripts", name="lightning")
        if entry.dist is not None and not entry.value.startswith(_OURS)
    }
    owner = f"that of {' or '.join(sorted(others))}" if others else "another package's"
    return (
        f"{file} is {owner}, not maskselect's; use `maskselect fit` in the place of `lightning fit`, or uninstall that "
        "package and run make setup again"
    )
