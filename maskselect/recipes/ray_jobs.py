"""Runs the parts of a build on Ray Data (https://docs.ray.io/en/latest/data/data.html).

They run on this machine, or on the running cluster that `RAY_ADDRESS` names. Its machines need the package, the same
weights, and the folders of images and output under the same names.
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

_CONNECT_SECONDS = 5.0


class _RayJob:
    """Runs one part in a process of Ray, which keeps this object and what it opened.

    The units travel as JSON, because Ray Data passes rows in Arrow, which would unify the types of their fields.
    Errors travel as text, because Ray would wrap them in a long message of its own.

    Args:
        folder: the current folder of the command. The processes of a running cluster start elsewhere, and paths in
            configs may be relative.
    """

    def __init__(self, steps: Steps, folder: str) -> None:
        self.steps = steps
        with suppress(OSError):  # the folder does not exist on every machine
            os.chdir(folder)

    def __call__(self, row: Part) -> Part:
        try:
            counts = list(self.steps(json.loads(row["part"])))
        except (ValueError, OSError) as error:
            return {"counts": "[]", "error": str(error)}
        return {"counts": json.dumps(counts), "error": ""}


def run_on_ray(steps: Steps, parts: list[Part], workers: int, gpus: float) -> Iterator[Counter[str]]:
    """Yield the counts of each unit, part by part as they finish, in no order.

    Args:
        steps: runs a part and yields counts after each unit. It must be picklable.
        gpus: of each process.

    Raises:
        ValueError: Ray is not installed, the cluster cannot be reached, or `steps` raised ValueError or OSError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors arrive as exceptions
    ray = require("ray", "ray")
    data = require("ray.data", "ray")
    started_here = not ray.is_initialized()
    if started_here:
        _start(ray, workers)
    try:
        data.DataContext.get_current().enable_progress_bars = False
        # Messages of Ray Data would break our progress bar; they stay in the log file of the session.
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        rows = data.from_items([{"part": json.dumps(part)} for part in parts], override_num_blocks=len(parts))
        resources = {"num_cpus": 1, "num_gpus": gpus, "compute": data.ActorPoolStrategy(size=workers)}
        for row in rows.map(_RayJob, fn_constructor_args=(steps, os.getcwd()), **resources).iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            yield from map(Counter, json.loads(row["counts"]))
    finally:
        if started_here:
            ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine."""
    address, options = os.environ.get("RAY_ADDRESS", ""), {}
    if address:
        _check_address(address, ray.util.get_node_ip_address)
    else:  # only here: a running cluster has its own processors and dashboard
        options = {"num_cpus": workers, "include_dashboard": False}
    try:
        with _stderr_muted():
            ray.init(log_to_driver=False, logging_level="error", **options)
    except Exception as error:  # Ray has no common class for its errors
        ray.shutdown()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not address:
            raise ValueError(f"Ray does not start on this machine: {reason} (--engine local needs no Ray)") from error
        raise ValueError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be used: {reason} (if it requires a token, set the same "
            "one here, in ~/.ray/auth_token or RAY_AUTH_TOKEN)"
        ) from error


@contextmanager
def _stderr_muted() -> Iterator[None]:
    """Discard what is written to standard error, where Ray reports its log level."""
    sys.stderr.flush()
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def _check_address(address: str, local_host: Callable[[], str]) -> None:
    """Raise ValueError if nothing listens at `host:port`; Ray itself would retry for 15 minutes.

    Args:
        local_host: returns the name that Ray uses for "localhost"; a head may listen there only.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():  # "auto", "local"
        return
    for name in (host, local_host()) if host in ("localhost", "127.0.0.1") else (host,):
        with suppress(OSError), socket.create_connection((name, int(port)), _CONNECT_SECONDS):
            return
    raise ValueError(
        f"no Ray cluster answers at RAY_ADDRESS={address}; expected host:port as `ray start --head` prints it"
    )
