"""What a server refuses, and what it writes to its log."""

import json
import logging
import re
import socket
from typing import Any

import pytest

from maskselect.serving.files import safe_stem
from maskselect.serving.run import bind
from maskselect.serving.settings import Settings
from tests.serving.conftest import client_of, live
from tests.serving.stub import cells_model, png

TOKEN = "a-long-secret"


def error_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_large_uploads_and_pictures_are_refused() -> None:
    with client_of(cells_model(), Settings(upload_mib=0.01, megapixels=0.005)) as client:
        declared = client.post("/api/pictures", content=bytes(20_000))
        assert error_of(declared) == (413, "too_large") and "0.01 MiB" in declared.json()["error"]["message"]
        assert error_of(client.post("/api/pictures", content=iter([bytes(6000)] * 3))) == (413, "too_large")  # chunked
        pixels = client.post("/api/pictures", content=png())
        assert error_of(pixels) == (413, "too_large") and "128x96" in pixels.json()["error"]["message"]
        assert client.app.state.server.model.system.reads == 0
        prompts = {"prompts": [{"text": "a"}] * 9}
        key = client.post("/api/pictures", content=png(0, 40, 60)).json()["id"]
        assert error_of(client.post(f"/api/pictures/{key}/answers", json=prompts)) == (413, "too_large")
        assert error_of(client.post("/api/pictures", content=b"")) == (400, "bad_request")


def test_a_slow_model_and_a_full_queue_give_clear_errors() -> None:
    import httpx2

    slow = live(cells_model(), Settings(port=0, seconds=0.5))
    with slow as (address, server), httpx2.Client(base_url=address, timeout=600) as client:
        key = server.pictures.read(png()).key
        server.model.system.gate.clear()
        late = client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": "a"}]})
        assert error_of(late) == (504, "too_slow") and "0.5 seconds" in late.json()["error"]["message"]
        server.worker.limit = 0
        refused = client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": "a"}]})
        server.model.system.gate.set()
        assert error_of(refused) == (503, "queue_full") and refused.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "attacker.example"}, 403),  # DNS rebinding
        ({"host": "127.0.0.1.attacker.example"}, 403),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://attacker.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_reach_nothing(client: Any, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/model", headers=headers).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="MASKSELECT_TOKEN"):
        Settings(host=host)
    assert Settings(host=host, token=TOKEN).token == TOKEN
    with pytest.raises(ValueError, match="8 printable"):
        Settings(token="short")


def test_the_token_opens_the_api_and_nothing_else_does() -> None:
    with client_of(cells_model(), Settings(host="0.0.0.0", token=TOKEN)) as client:
        far = {"host": "gpu.example:7860"}
        assert client.get("/health", headers=far).status_code == client.get("/", headers=far).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"token": "wrong"}, {"authorization": TOKEN}):
            assert error_of(client.get("/api/model", headers=far | headers)) == (401, "unauthorized")
            assert client.get("/v1/models", headers=far | headers).json()["error"]["code"] == "UNAUTHORIZED"
        assert client.get("/api/model", headers=far | {"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/v1/models", headers=far | {"token": TOKEN}).json()["success"]


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page/../settings.py", "/%2e%2e/settings.py", "/serving/run.py", "//etc/passwd"]
)
def test_no_file_of_the_server_is_sent(client: Any, path: str) -> None:
    assert error_of(client.get(path)) == (404, "not_found")


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\x", "/etc/cron.d/x.png", "a\nb", "\x00", "." * 300])
def test_names_of_downloads_have_no_folders(name: str) -> None:
    stem = safe_stem(name)
    assert stem and not re.search(r"[/\\\x00\n]", stem) and stem.strip(".") and len(stem) <= 80


def test_the_log_has_request_ids_and_no_prompts(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maskselect.serving")
    key = client.post("/api/pictures", content=png()).json()["id"]
    response = client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": "private words"}]})
    lines = [record.getMessage() for record in caplog.records if record.name == "maskselect.serving"]
    assert re.fullmatch(rf"{response.headers['x-request-id']} POST /api/pictures/{key}/answers 200 \d+ ms", lines[-1])
    assert "private" not in "".join(lines)


def test_a_failure_of_the_server_has_its_cause_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    model = cells_model()
    with client_of(model) as client:
        key = client.post("/api/pictures", content=png()).json()["id"]
        model.system.answer = _out_of_memory  # type: ignore[assignment]
        response = client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": "a"}]})
        request = response.json()["error"]["request"]
        assert response.status_code == 500 and "Traceback" not in response.text
        assert any(request in record.getMessage() and record.exc_info for record in caplog.records)


def _out_of_memory(*_: Any) -> None:
    raise RuntimeError("CUDA out of memory")


def test_health_is_that_of_the_protocol(client: Any) -> None:
    health = client.get("/health").json()
    assert health["status"] == "healthy" and health["models_loaded"] == 1 and health["timestamp"].endswith("Z")


def test_a_used_port_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match=f"port {other.getsockname()[1]} of 127.0.0.1 cannot be used"):
            bind(Settings(port=other.getsockname()[1]))


def test_only_the_last_pictures_are_kept() -> None:
    with client_of(cells_model(), Settings(pictures=2)) as client:
        keys = [client.post("/api/pictures", content=png(seed)).json()["id"] for seed in range(3)]
        ask = [
            client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": "a"}]}).status_code for key in keys
        ]
        assert ask == [404, 200, 200]
        assert json.loads(client.get("/health").text)["waiting"] == 0
