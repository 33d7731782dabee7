"""The parts of a build on Ray Data (https://docs.ray.io/en/latest/data/data.html).

On this machine, or on a cluster that runs already and that `RAY_ADDRESS` names. Its machines must have the package, the
same weights, and the folders of images and output under the same names.
"""

import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from maskselect.backends.optional import require

Part = dict[str, Any]
Steps = Callable[[Part], Iterator[Counter[str]]]

_PATIENCE = 5.0  # seconds for a cluster to answer


class _RayJob:
    """One part, in one of Ray's processes, which make this once and keep what it opened.

    folder: that in which the command was given. Processes of a cluster that runs already stand where that was begun, so
        they go there, where their machine has it: paths in configs may be relative.

    The units travel as JSON text: Arrow, which Ray Data passes rows in, would give their fields one common type.
    An error travels as text too: Ray would wrap it into a page of its own.
    """

    def __init__(self, steps: Steps, folder: str) -> None:
        self.steps = steps
        with suppress(OSError):
            os.chdir(folder)

    def __call__(self, row: Part) -> Part:
        try:
            counted = list(self.steps(json.loads(row["part"])))
        except (ValueError, OSError) as error:
            return {"counts": "[]", "error": str(error)}
        return {"counts": json.dumps(counted), "error": ""}


def run_on_ray(steps: Steps, parts: list[Part], workers: int, gpus: float) -> Iterator[Counter[str]]:
    """What was counted for each unit, part by part as they are done, in no order.

    steps: does one part, and yields what it counted after each of its units. It must be picklable.
    workers: processes.  gpus: that each of them takes for itself.

    Raises ValueError when Ray is not installed or the cluster cannot be reached, and for a ValueError or OSError of
    `steps`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors come as exceptions
    ray = require("ray", "ray")
    data = require("ray.data", "ray")
    own = not ray.is_initialized()
    if own:
        _start(ray, workers)
    try:
        data.DataContext.get_current().enable_progress_bars = False
        _quiet(logging.getLogger("ray.data"))
        rows = data.from_items([{"part": json.dumps(part)} for part in parts], override_num_blocks=len(parts))
        taken = {"num_cpus": 1, "num_gpus": gpus, "compute": data.ActorPoolStrategy(size=workers)}
        mapped = rows.map(_RayJob, fn_constructor_args=(steps, os.getcwd()), **taken)
        for row in mapped.iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            yield from map(Counter, json.loads(row["counts"]))
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Connects to the cluster that RAY_ADDRESS names, or begins one on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        try:
            with _unheard():
                ray.init(log_to_driver=False, logging_level="error", num_cpus=workers, include_dashboard=False)
        except Exception as error:  # Ray has no class of its own for it
            ray.shutdown()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"Ray does not start on this machine: {reason} (--engine local needs no Ray)") from error
        return
    _check(address, ray.util.get_node_ip_address)
    try:  # a cluster that runs already has its own processors and dashboard
        with _unheard():
            ray.init(log_to_driver=False, logging_level="error")
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be used: {reason} (where it asks for a token, the same "
            "one is expected here, in ~/.ray/auth_token or RAY_AUTH_TOKEN)"
        ) from error


@contextmanager
def _unheard() -> Iterator[None]:
    """While it is entered, nothing is written to standard error: Ray tells there of the log level that it was given."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check(address: str, own_host: Callable[[], str]) -> None:
    """Raises ValueError when nobody listens at `host:port`: Ray itself asks for a quarter of an hour.

    own_host: gives the name that Ray takes for "localhost", at which alone a head may listen.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():  # "auto", "local"
        return
    for name in (host, own_host()) if host in ("localhost", "127.0.0.1") else (host,):
        with suppress(OSError), socket.create_connection((name, int(port)), _PATIENCE):
            return
    raise ValueError(
        f"no Ray cluster answers at RAY_ADDRESS={address}; expected host:port as `ray start --head` tells it"
    )


def _quiet(logger: logging.Logger) -> None:
    """What Ray Data tells of its plans would break our own bar into pieces; it stays in the log file of the session."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
