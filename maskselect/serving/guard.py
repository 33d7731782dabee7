"""`Guard`: what every request passes: host, origin and token, a request id, a line in the log, safe headers."""

import json
import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from maskselect.serving.settings import Refusal, Settings, is_loopback

log = logging.getLogger("maskselect.serving")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
_GUARDED = ("/api/", "/v1/")
"""Paths that need the token. The page itself and /health hold nothing secret."""


class Guard:
    """ASGI middleware.

    Args:
        app: the application.
        settings: token and host.
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, began = secrets.token_hex(6), time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request
        status = 0

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {**HEADERS, "x-request-id": request}
                message["headers"] = [
                    *message["headers"], *((name.encode(), value.encode()) for name, value in extra.items())
                ]  # fmt: skip
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, sending)
        except Refusal as refusal:
            await _refuse(sending, scope, refusal, request)
        except ClientDisconnect:
            status = 499
        except Exception:
            log.exception("%s failed", request)
            if not status:
                hint = f"the server failed at this request; its log has the cause under {request}"
                await _refuse(sending, scope, Refusal(500, "internal", hint), request)
        finally:
            spent = 1000 * (time.perf_counter() - began)
            log.info("%s %s %s %d %.0f ms", request, scope["method"], _printable(scope["path"]), status or 499, spent)

    def _check(self, scope: dict[str, Any]) -> None:
        """Raise Refusal for a foreign host or origin, or a wrong token."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.settings.is_local and not is_loopback(_host_of(host)):
            raise Refusal(403, "foreign_host", "the server answers requests to localhost only")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refusal(403, "foreign_origin", "the request comes from the page of another site")
        if self.settings.token is None or not scope["path"].startswith(_GUARDED):
            return
        kind, _, value = headers.get("authorization", "").partition(" ")
        stated = value if kind.lower() == "bearer" else headers.get("token", "")
        if not secrets.compare_digest(stated.encode("latin-1"), self.settings.token.encode()):
            raise Refusal(
                401, "unauthorized", "the token is missing or wrong; open the page with #token=… in its address"
            )


def _host_of(header: str) -> str:
    """The host of a Host header, without the port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _printable(path: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in path)[:200]


async def _refuse(send: Any, scope: dict[str, Any], refusal: Refusal, request: str) -> None:
    """Send an error in the form of the API, or of X-AnyLabeling's protocol."""
    status = refusal.status
    content: dict[str, Any] = {"error": {"code": refusal.code, "message": refusal.message, "request": request}}
    if scope["path"].startswith("/v1/"):
        content = {"success": False, "error": {"code": refusal.code.upper(), "message": refusal.message}}
        content |= {"detail": refusal.message}
        status = 200 if refusal.status == 401 else refusal.status
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
