"""Runs the application with uvicorn."""

import logging
import socket
import sys

import uvicorn

from maskselect.predictor import Model
from maskselect.serving.application import create_app
from maskselect.serving.settings import Settings

_GRACE = 5  # seconds for running requests when the server stops


def bind(settings: Settings) -> socket.socket:
    """The socket of the server. A port is bound before the model is loaded, so that this error comes first.

    Raises:
        ValueError: the host or port cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)  # without the protocol asyncio leaves TCP_NODELAY off: 40 ms more
    except OSError as error:
        raise ValueError(f"--host {settings.host} is no address of this machine: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(
            f"port {settings.port} of {settings.host} cannot be used ({error.strerror}); expected a free --port"
        ) from error
    return bound


def run(model: Model, settings: Settings, bound: socket.socket) -> None:
    """Serve until a signal stops it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("maskselect.serving")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    config = uvicorn.Config(
        create_app(model, settings),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=4 * settings.waiting,
        ws="none",
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"{model.name} is served on http://{host}:{bound.getsockname()[1]} (Ctrl-C stops it)", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        bound.close()
        log.removeHandler(handler)
