import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from maskselect.predictor import Model
from maskselect.serving.settings import Settings
from tests.serving.stub import cells_model


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of a server with known answers, in this process."""
    with client_of(cells_model()) as opened:
        yield opened


@contextmanager
def client_of(model: Model, settings: Settings | None = None, **options: Any) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    from maskselect.serving.application import create_app

    app = create_app(model, settings)
    with TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False, **options) as opened:
        yield opened


@contextmanager
def live(model: Model, settings: Settings | None = None) -> Iterator[tuple[str, Any]]:
    """The address of a server that runs in a thread, and the server."""
    import uvicorn

    from maskselect.serving.application import create_app
    from maskselect.serving.run import bind

    settings = settings or Settings(port=0)
    app = create_app(model, settings)
    with bind(settings) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", app.state.server
        server.should_exit = True
        thread.join(600)


def wait_for(happened: Callable[[], Any], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
