"""A stand-in for a language model's endpoint: real HTTP on loopback, answers by script."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the endpoint sends back. body: bytes as they are, or the text of a completion."""

    body: bytes | str | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: float = 0.0

    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        message = {"role": "assistant", "content": self.body}
        return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


@dataclass
class Request:
    """What it was asked."""

    path: str
    headers: Message
    body: Any

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])

    @property
    def things(self) -> list[str]:
        """The names that the builder lists."""
        found = re.search(r"^Things: (.*)$", self.prompt, re.MULTILINE)
        return found[1].split("; ") if found else []


Script = Callable[[Request, int], Reply]
"""Request and its number, from 0, to a reply."""


class Endpoint:
    """A server that is up, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []


@contextmanager
def serving(script: Script) -> Iterator[Endpoint]:
    """An endpoint on a free port of loopback, as long as the block lasts."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, self.headers, json.loads(data))
            endpoint.requests.append(request)
            reply = script(request, len(endpoint.requests) - 1)
            if reply.hangs and stop.wait(reply.hangs):
                return
            base = {"Content-Length": str(len(reply.data())), "Content-Type": "application/json"}
            self.send_response(reply.status)
            for name, value in (base | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.data())

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
