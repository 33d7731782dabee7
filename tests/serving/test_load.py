"""Many clients, clients that go away, and a server that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch

from maskselect.data.images import load_image
from maskselect.serving.settings import Settings
from tests.serving.conftest import live, wait_for
from tests.serving.stub import cells_model, png, score_of

ROOT = Path(__file__).resolve().parents[2]
NONE = torch.zeros(0, 4, 4, dtype=torch.bool)


def test_200_requests_of_8_clients_are_not_mixed_up() -> None:
    pictures = [png(seed) for seed in range(3)]
    arrays = [load_image(content) for content in pictures]
    with live(cells_model(delay=0.02), Settings(port=0, waiting=300)) as (address, server):

        def work(client_number: int) -> int:
            right = 0
            with httpx2.Client(base_url=address, timeout=600) as client:
                for number in range(25):
                    which = (number + client_number) % 3
                    key = client.post("/api/pictures", content=pictures[which]).json()["id"]
                    texts = [f"client {client_number} prompt {number} {letter}" for letter in "ab"[: 1 + number % 2]]
                    answers = client.post(
                        f"/api/pictures/{key}/answers", json={"prompts": [{"text": text} for text in texts]}
                    ).json()["answers"]
                    assert [one["prompt"] for one in answers] == texts
                    for text, one in zip(texts, answers, strict=True):
                        wanted = [score_of(text, NONE, arrays[which], candidate) for candidate in range(18)]
                        np.testing.assert_allclose(one["scores"], np.float32(wanted))
                    right += 1
            return right

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 200
        assert server.model.system.reads == 3, "a picture was read more than once"
        assert max(server.worker.batches) > 2, "no requests were answered together"
        assert len(server.worker) == 0


def test_one_bad_prompt_of_a_batch_fails_alone() -> None:
    with live(cells_model(delay=0.2)) as (address, _), httpx2.Client(base_url=address, timeout=600) as client:
        key = client.post("/api/pictures", content=png()).json()["id"]

        def ask(text: str) -> int:
            with httpx2.Client(base_url=address, timeout=600) as own:
                return own.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": text}]}).status_code

        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(ask, ["first", "a", "explode", "b", "c"])) == [200, 200, 400, 200, 200]


def test_a_client_that_goes_away_is_not_answered() -> None:
    with live(cells_model()) as (address, server), httpx2.Client(base_url=address, timeout=600) as client:
        keys = [client.post("/api/pictures", content=png(seed)).json()["id"] for seed in (0, 1)]
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps({"prompts": [{"text": "busy"}]}).encode()

        def start(key: str) -> socket.socket:
            opened = socket.create_connection((host, int(port)))
            head = f"POST /api/pictures/{key}/answers HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            opened.sendall(head.encode() + body)
            return opened

        server.model.system.gate.clear()
        first = start(keys[0])
        wait_for(lambda: server.model.system.asked == 1)
        gone = [start(keys[1]) for _ in range(5)]
        wait_for(lambda: len(server.worker) == 5)
        for one in gone:
            one.close()
        wait_for(lambda: len(server.worker) == 0)
        server.model.system.gate.set()
        assert first.recv(15).startswith(b"HTTP/1.1 200")
        assert server.model.system.asked == 1, "an answer was computed for nobody"
        first.close()
        assert client.get("/health").json()["waiting"] == 0
        assert client.post(f"/api/pictures/{keys[1]}/answers", json={"prompts": [{"text": "a"}]}).status_code == 200


def test_an_upload_that_stops_leaves_nothing() -> None:
    with live(cells_model()) as (address, server):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as opened:
            head = f"POST /api/pictures HTTP/1.1\r\nHost: {host}\r\nContent-Length: 90000\r\n\r\n"
            opened.sendall(head.encode() + bytes(500))
        assert httpx2.get(f"{address}/health", timeout=600).json()["waiting"] == 0
        assert len(server.pictures) == 0


SCRIPT = """
import sys
from maskselect.serving.run import bind, run
from maskselect.serving.settings import Settings
from tests.serving.stub import cells_model
settings = Settings(port=int(sys.argv[1]))
with bind(settings) as bound:
    run(cells_model(delay=float(sys.argv[2])), settings, bound)
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 0)])
def test_a_server_that_is_stopped_frees_its_port_and_leaves_no_file(tmp_path: Path, sent: int, status: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", SCRIPT, str(port), "0.5"]
    with subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"cells is served on http://127.0.0.1:{port} (Ctrl-C stops it)\n"
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            key = client.post("/api/pictures", content=png()).json()["id"]
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.post, f"/api/pictures/{key}/answers", json={"prompts": [{"text": "a"}]})
                time.sleep(0.2)
                process.send_signal(sent)
                if sent == signal.SIGKILL:
                    with pytest.raises(httpx2.HTTPError):
                        asked.result()
                else:
                    assert asked.result().status_code == 200, "a running request was not finished"
        assert process.wait(600) == status
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    assert not list(here.iterdir()) and not list(temporary.iterdir())
