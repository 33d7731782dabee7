"""The application: the page, its API and X-AnyLabeling's protocol, for one model."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from maskselect.ops import rle
from maskselect.predictor import Model
from maskselect.scenes.layout import scene_ids
from maskselect.scenes.samples import ask_scene
from maskselect.serving import anylabeling, files
from maskselect.serving.clips import Clips, StoppedError, WatchedClip, answer_clip, write_clip
from maskselect.serving.guard import Guard
from maskselect.serving.pictures import Kept, Pictures, digest
from maskselect.serving.settings import MIB, Refusal, Settings, bad_input
from maskselect.serving.wire import (
    AnswersIn,
    ClipFilesIn,
    FilesIn,
    PromptIn,
    ReferencesIn,
    answer_record,
    duplicates_iou,
    parse,
)
from maskselect.serving.worker import Question, Task, Worker
from maskselect.structures.answer import Answer
from maskselect.structures.references import Reference
from maskselect.structures.sample import MASK_REF

_PAGE = Path(__file__).parent / "page"
_STATIC = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css")}
_STATIC |= {f"/{name}": (name, "text/javascript") for name in ("page.js", "masks.js")}
_JSON_BYTES = 8 * MIB  # of a request without a picture
_UPLOAD_SECONDS = 60
_POLL = 0.25  # seconds between checks whether a client is still there
_SAMPLES = 50


class Server:
    """What the requests of one model share.

    Args:
        model: the model.
        settings: limits.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.worker = Worker(model, settings.waiting, settings.batch)
        self.pictures, self.clips = Pictures(model, settings), Clips(settings)
        self.writing = asyncio.Semaphore(2)  # downloads at a time, to bound memory

    async def picture(self, request: Request, content: bytes) -> Kept:
        """A picture, read by the worker unless it is kept."""
        if (kept := self.pictures.find(digest(content))) is not None:
            return kept
        read: Kept = await self.wait(request, Task(lambda: self.pictures.read(content)), self.settings.seconds)
        return read

    async def answers(
        self, request: Request, kept: Kept, texts: list[str], references: list[list[Reference]], threshold: float | None
    ) -> list[Answer]:
        """The answers to prompts. Raises Refusal."""
        if len(texts) > self.settings.prompts:
            raise Refusal(413, "too_large", f"{len(texts)} prompts at once; expected at most {self.settings.prompts}")
        question = Question(kept.picture, texts, references, threshold)
        answers: list[Answer] = await self.wait(request, question, self.settings.seconds)
        return answers

    async def wait(self, request: Request, entry: Question | Task, seconds: float) -> Any:
        """The result of an entry for the worker; an entry that nobody waits for any more is cancelled.

        Raises:
            Refusal: the queue is full, the time is over, or the input is bad.
            ClientDisconnect: the client went away.
        """
        self.worker.put(entry)
        future, end = asyncio.wrap_future(entry.future), time.monotonic() + seconds
        try:
            while True:
                done, _ = await asyncio.wait({future}, timeout=_POLL)
                if done:
                    return future.result()
                if time.monotonic() > end:
                    raise Refusal(504, "too_slow", f"the model did not answer within {seconds:g} seconds")
                if await request.is_disconnected():
                    raise ClientDisconnect
        except asyncio.CancelledError as error:
            if entry.future.cancelled():  # by the worker, which stops
                raise Refusal(503, "stopping", "the server stops; try again later") from error
            raise
        except (ValueError, FileNotFoundError) as error:
            raise bad_input(error) from error
        finally:
            future.cancel()


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request. Raises Refusal if it is too large or too slow, and for an empty one."""
    too_large = Refusal(413, "too_large", f"the request is larger than {limit / MIB:.3g} MiB; expected a smaller file")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise Refusal(408, "too_slow", f"the request took longer than {_UPLOAD_SECONDS} seconds to arrive") from error
    if not size:
        raise Refusal(400, "bad_request", "the request is empty; expected a file or JSON")
    return b"".join(parts)


def _download(file: tuple[str, str, bytes]) -> Response:
    name, kind, content = file
    return Response(
        content, media_type=kind, headers={"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    )


def create_app(model: Model, settings: Settings | None = None) -> FastAPI:
    """The application for a model. It starts the thread that runs the model.

    Args:
        model: shared by all requests.
        settings: limits; None for the defaults.
    """
    settings = settings or Settings()
    server = Server(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(server.worker.stop)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)  # their pages load from outside
    app.state.server = server
    app.add_middleware(Guard, settings=settings)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    _add_page(app)
    _add_pictures(app, server)
    _add_clips(app, server)
    _add_anylabeling(app, server)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    """Give the errors of the router the form of all others, which `Guard` sends."""
    if isinstance(error, HTTPException):
        raise Refusal(error.status_code, "not_found" if error.status_code == 404 else "bad_request", str(error.detail))
    raise Refusal(400, "bad_request", "the address holds a text where a number is expected")


def _add_page(app: FastAPI) -> None:
    for path, (name, kind) in _STATIC.items():
        app.add_api_route(path, _sender((_PAGE / name).read_bytes(), kind), methods=["GET"], response_model=None)


def _sender(content: bytes, kind: str) -> Callable[[], Response]:
    """An endpoint that sends a file of the page. It has no parameters, which FastAPI would take from the address."""

    def send() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return send


def _add_pictures(app: FastAPI, server: Server) -> None:
    model, settings = server.model, server.settings

    @app.get("/health")
    def health() -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"status": "healthy", "models_loaded": 1, "timestamp": now, "waiting": len(server.worker)}

    @app.get("/api/model")
    def describe() -> dict[str, Any]:
        return {
            "name": model.name,
            "version": version("maskselect"),
            "threshold": model.threshold,
            "duplicates_iou": duplicates_iou(model),
            "points": model.prompter is not None,
            "clips": find_spec("av") is not None,
            "upload_bytes": settings.upload_bytes,
            "prompts": settings.prompts,
            "samples": _SAMPLES,
        }

    @app.get("/api/samples/{number}")
    def sample(number: int) -> dict[str, Any]:
        if not 0 <= number < _SAMPLES:
            raise Refusal(404, "no_sample", f"sample {number} does not exist; expected 0 to {_SAMPLES - 1}")
        scene = ask_scene(list(scene_ids("val", 24, _SAMPLES))[number], (384, 512), 12)
        content = io.BytesIO()
        Image.fromarray(scene.image).save(content, "PNG")
        plain = [prompt.text for prompt in scene.prompts if prompt.targets and MASK_REF not in prompt.text]
        shortest = sorted(dict.fromkeys(plain), key=len)[:4]
        return {"image": base64.b64encode(content.getvalue()).decode(), "prompts": shortest}

    @app.post("/api/pictures")
    async def add(request: Request) -> dict[str, Any]:
        return (await server.picture(request, await _body(request, settings.upload_bytes))).record

    @app.get("/api/pictures/{key}/image")
    def image(key: str) -> Response:
        content = io.BytesIO()
        Image.fromarray(server.pictures.get(key).picture.working).save(content, "JPEG", quality=92)
        return Response(content.getvalue(), media_type="image/jpeg")

    @app.post("/api/pictures/{key}/answers")
    async def answer(key: str, request: Request) -> JSONResponse:
        began = time.perf_counter()
        asked = parse(AnswersIn, await _body(request, _JSON_BYTES))
        kept = server.pictures.get(key)
        references = await run_in_threadpool(_references, asked.prompts, kept)
        texts = [prompt.text for prompt in asked.prompts]
        answers = await server.answers(request, kept, texts, references, asked.threshold)

        def records() -> list[dict[str, Any]]:
            triples = zip(answers, asked.prompts, references, strict=True)
            return [answer_record(*triple, kept.record, kept.picture, model, threshold) for triple in triples]

        threshold = asked.threshold if asked.threshold is not None else model.threshold
        content = {"answers": await run_in_threadpool(records), "threshold": threshold}
        return JSONResponse(content | {"seconds": round(time.perf_counter() - began, 4)})

    @app.post("/api/pictures/{key}/references")
    async def reference_masks(key: str, request: Request) -> dict[str, Any]:
        asked = parse(ReferencesIn, await _body(request, _JSON_BYTES))
        kept = server.pictures.get(key)
        resolved = _references([PromptIn(text="", references=asked.references)], kept)[0]
        task = Task(lambda: model.reference_masks(kept.picture, resolved))
        masks = await server.wait(request, task, settings.seconds)
        return {"masks": await run_in_threadpool(rle.encode, masks.cpu().numpy())}

    @app.post("/api/pictures/{key}/files")
    async def write(key: str, request: Request) -> Response:
        wanted = parse(FilesIn, await _body(request, _JSON_BYTES))
        kept, name = server.pictures.get(key), request.query_params.get("name", "")
        if len(wanted.groups) > settings.prompts:
            raise Refusal(413, "too_large", f"{len(wanted.groups)} prompts; expected at most {settings.prompts}")
        async with server.writing:
            return _download(await run_in_threadpool(files.write_groups, wanted, kept, model, name))


def _references(prompts: list[PromptIn], kept: Kept) -> list[list[Reference]]:
    picture = kept.picture
    working = (picture.working.shape[0], picture.working.shape[1])
    return [[one.resolve(picture.size, working, picture.pool) for one in prompt.references] for prompt in prompts]


def _add_clips(app: FastAPI, server: Server) -> None:
    model, settings = server.model, server.settings

    @app.post("/api/clips")
    async def add(request: Request) -> dict[str, Any]:
        if find_spec("av") is None:
            raise Refusal(501, "no_video", "the server reads no videos; install the extra video beside serve")
        content = await _body(request, settings.upload_bytes)
        return (await run_in_threadpool(server.clips.add, content)).record()

    @app.get("/api/clips/{key}/frames/{number}")
    def frame(key: str, number: int) -> Response:
        return Response(server.clips.get(key).jpeg(number), media_type="image/jpeg")

    @app.post("/api/clips/{key}/answers")
    async def answer(key: str, request: Request) -> StreamingResponse:
        asked = parse(AnswersIn, await _body(request, _JSON_BYTES))
        kept = server.clips.get(key)
        if len(asked.prompts) > settings.prompts:
            raise Refusal(413, "too_large", f"{len(asked.prompts)} prompts; expected at most {settings.prompts}")
        watched = WatchedClip(kept)
        task = Task(lambda: answer_clip(model, kept, watched, asked.prompts, asked.threshold))
        server.worker.put(task)
        lines = _progress(task, watched, settings.clip_seconds)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    @app.post("/api/clips/{key}/files")
    async def write(key: str, request: Request) -> Response:
        wanted = parse(ClipFilesIn, await _body(request, _JSON_BYTES))
        kept, name = server.clips.get(key), request.query_params.get("name", "")
        async with server.writing:
            return _download(await run_in_threadpool(write_clip, wanted, kept, model, name))


async def _progress(task: Task, watched: WatchedClip, seconds: float) -> AsyncIterator[bytes]:
    """Lines of JSON: `{"seen", "frames"}` while the model works, then `{"answers"}` or `{"error"}`.

    When the client goes away, or the time is over, the model stops at the next frame.
    """
    end, future = time.monotonic() + seconds, asyncio.wrap_future(task.future)
    try:
        while not future.done():
            yield json.dumps({"seen": watched.seen, "frames": len(watched)}).encode() + b"\n"
            await asyncio.wait({future}, timeout=_POLL)
            if time.monotonic() > end:
                raise Refusal(504, "too_slow", f"the model did not answer within {seconds:g} seconds")
        yield json.dumps({"answers": future.result()}).encode() + b"\n"
    except (ValueError, FileNotFoundError) as error:
        yield _error_line(bad_input(error))
    except Refusal as refusal:
        yield _error_line(refusal)
    except asyncio.CancelledError:
        if not task.future.cancelled():  # the client went away; otherwise the worker stopped
            raise
        yield _error_line(Refusal(503, "stopping", "the server stops; try again later"))
    except StoppedError:
        yield _error_line(Refusal(499, "stopped", "the prompt was stopped"))
    finally:
        if not future.done():
            watched.stopped.set()
            future.cancel()


def _error_line(refusal: Refusal) -> bytes:
    return json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode() + b"\n"


def _add_anylabeling(app: FastAPI, server: Server) -> None:
    model, settings = server.model, server.settings

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"success": True, "data": {model.name: anylabeling.model_record(model)}}

    @app.get("/v1/models/{name}/info")
    def info(name: str) -> dict[str, Any]:
        if name != model.name:
            return _failed(Refusal(404, "model_not_found", f"model {name!r} is not loaded; expected {model.name!r}"))
        return {"success": True, "data": {"model_id": name, **anylabeling.model_record(model)}}

    @app.post("/v1/predict")
    async def predict(request: Request) -> dict[str, Any]:
        try:
            body = await _body(request, settings.upload_bytes * 4 // 3 + MIB)  # base64
            asked = parse(anylabeling.PredictIn, body)
            if asked.model != model.name:
                raise Refusal(404, "model_not_found", f"model {asked.model!r} is not loaded; expected {model.name!r}")
            return {"success": True, "data": await _predicted(server, request, asked)}
        except Refusal as refusal:
            if refusal.status == 503:
                raise
            return _failed(refusal)


def _failed(refusal: Refusal) -> dict[str, Any]:
    return {"success": False, "error": {"code": refusal.code.upper(), "message": refusal.message}}


async def _predicted(server: Server, request: Request, asked: anylabeling.PredictIn) -> dict[str, Any]:
    """The shapes that answer a request of X-AnyLabeling."""
    model, params = server.model, asked.params
    content = anylabeling.image_bytes(asked.image)
    if len(content) > server.settings.upload_bytes:
        raise Refusal(413, "too_large", f"the image is larger than {server.settings.upload_mib:g} MiB")
    try:
        kept = await server.picture(request, content)
    except Refusal as refusal:
        code = "invalid_image" if refusal.code == "bad_input" else refusal.code
        raise Refusal(refusal.status, code, refusal.message) from refusal
    size, references = kept.picture.size, anylabeling.references_of(params.marks)
    found: list[tuple[np.ndarray, str, float | None]]
    if not params.text_prompt.strip():
        task = Task(lambda: model.reference_masks(kept.picture, references))
        masks = (await server.wait(request, task, server.settings.seconds)).cpu().numpy() if references else []
        found = [(mask, anylabeling.OBJECT, None) for mask in masks]
    else:
        texts, given = anylabeling.prompts_of(params.text_prompt, references)
        threshold = params.conf_threshold if model.threshold is not None else None
        answers = await server.answers(request, kept, texts, given, threshold)
        found = [
            (mask.cpu().numpy(), text.replace(MASK_REF, "reference"), float(score))  # type: ignore[union-attr]
            for text, answer in zip(texts, answers, strict=True)
            for mask, score in zip(answer.masks, answer.scores, strict=True)  # type: ignore[arg-type]
        ]

    def shapes() -> list[dict[str, Any]]:
        return [
            shape
            for number, (mask, label, score) in enumerate(found)
            for shape in anylabeling.shapes_of(mask, size, label, score, number)
        ]

    return {"shapes": await run_in_threadpool(shapes), "description": ""}
