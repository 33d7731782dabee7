"""No test of the doctor may reach a network, nor see what this machine has in its caches."""

import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache of the hub, and sockets that refuse."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the doctor asked a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return cache
