"""The clients: over real HTTP on loopback, and through transformers with tiny random models."""

import email.utils
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, LlavaProcessor

from maskselect.lmm.llava import Llava
from maskselect.lmm.tokenizer import load_compact_in_transformers
from maskselect.recipes.llm_seg40k import language_models
from maskselect.recipes.llm_seg40k.captioners import RasCaptioner, TransformersCaptioner
from maskselect.recipes.llm_seg40k.language_models import ChatEndpoint, TransformersModel
from maskselect.recipes.llm_seg40k.worker import kept_text
from maskselect.scenes.layout import scene_ids
from maskselect.scenes.render import render
from maskselect.scenes.stream import scene_of
from tests.lmm.twin import twin
from tests.recipes.endpoint import Endpoint, Reply, Script, serving
from tests.systems.tiny import SIZES

ASK = [{"role": "user", "content": "What cuts bread?"}]
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def client(endpoint: Endpoint, **changes: object) -> ChatEndpoint:
    return ChatEndpoint(endpoint.url, "tiny", **({"pause": 0.01, "timeout": 600.0} | changes))  # type: ignore[arg-type]


def refusals(script: Script, **changes: object) -> tuple[str, int]:
    """The one sentence that a failing endpoint ends in, and how often it was asked."""
    with serving(script) as endpoint:
        with pytest.raises(ValueError) as raised:
            client(endpoint, **changes).complete(ASK, 7)
        told = str(raised.value)
        assert KEY not in told and "\n" not in told and endpoint.url in told
        return told, len(endpoint.requests)


# --- an endpoint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_what_is_sent(ending: str) -> None:
    with serving(lambda request, number: Reply("a knife")) as endpoint:
        model = ChatEndpoint(endpoint.url + ending, "tiny", temperature=0.5)
        assert model.complete(ASK, 7) == "a knife"
        (request,) = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {"model": "tiny", "messages": ASK, "seed": 7, "temperature": 0.5}
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert model.name == "tiny temperature=0.5"


def test_the_key_travels_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request, number: Reply("yes")) as endpoint:
        model = client(endpoint)
        assert KEY.encode() not in pickle.dumps(model)
        monkeypatch.delenv("OPENAI_API_KEY")
        assert pickle.loads(pickle.dumps(model)).complete(ASK, 0) == "yes"
        assert "Authorization" not in endpoint.requests[0].headers
        monkeypatch.setenv("OPENAI_API_KEY", KEY + "\nmore")
        with pytest.raises(ValueError, match="OPENAI_API_KEY has blanks") as raised:
            model.complete(ASK, 0)
        assert KEY not in str(raised.value)


def test_a_redirect_does_not_carry_the_key_away() -> None:
    with serving(lambda request, number: Reply("stolen")) as other:
        told, asked = refusals(lambda request, number: Reply(b"", 307, {"Location": other.url}))
        assert not other.requests
    assert "status 307" in told and asked == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_it_asks_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(language_models, "sleep", waited.append)
    with serving(lambda request, number: Reply(b"busy", status) if number < 2 else Reply("now")) as endpoint:
        assert client(endpoint, pause=4.0).complete(ASK, 0) == "now"
        assert len(endpoint.requests) == 3
    assert 3 <= waited[0] <= 5 and 6 <= waited[1] <= 10  # twice the pause each time, a quarter more or less


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(language_models, "sleep", waited.append)
    with serving(lambda request, number: Reply(b"", 429, {"Retry-After": "7"}) if not number else Reply("ok")) as there:
        assert client(there).complete(ASK, 0) == "ok"
    assert waited == [7]
    in_an_hour = email.utils.formatdate(time.time() + 3600, usegmt=True)
    told, asked = refusals(lambda request, number: Reply(b"", 429, {"Retry-After": in_an_hour}))
    assert "asks to wait 3" in told and asked == 1
    told, asked = refusals(lambda request, number: Reply(b"", 429, {"Retry-After": "soon"}), retries=1)
    assert "failed 2 times" in told and asked == 2


def test_what_fails_for_good() -> None:
    told, asked = refusals(lambda request, number: Reply(b"broken", 500), retries=3)
    assert "failed 4 times, at last so: status 500" in told and asked == 4
    told, asked = refusals(lambda request, number: Reply("late", hangs=600), timeout=0.2, retries=1)
    assert "failed 2 times" in told and "no answer within 0.2 s" in told
    quoted = json.dumps({"error": {"message": f"no model 'tiny'\nfor {KEY}"}}).encode()
    told, asked = refusals(lambda request, number: Reply(quoted, 404))
    assert told.endswith("refused the request for model 'tiny' (status 404): no model 'tiny' for …") and asked == 1


def test_refused_access_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = refusals(lambda request, number: Reply(f"Incorrect API key: {KEY[:9]}".encode(), 401))
    assert "OPENAI_API_KEY, which is set" in told and KEY[:9] not in told
    told, _ = refusals(lambda request, number: Reply(b"", 403), key_variable="NO_SUCH_KEY")
    assert "NO_SUCH_KEY, which is not set" in told


@pytest.mark.parametrize(
    "body",
    [b"<html>a proxy</html>", b"", b"[" * 9999, b"[]", b'{"choices": []}', b"\xff\xfe", b'{"choices": {"0": 1}}'],
)
def test_another_form(body: bytes) -> None:
    told, asked = refusals(lambda request, number: Reply(body))
    assert "expected JSON with the text choices[0].message.content" in told and asked == 1


def test_a_refused_answer_is_an_empty_one() -> None:
    with serving(lambda request, number: Reply(None)) as endpoint:
        assert client(endpoint).complete(ASK, 0) == ""


def test_a_connection_that_breaks_off() -> None:
    told, asked = refusals(lambda request, number: Reply("x", headers={"Content-Length": "9999"}), retries=1)
    assert "failed 2 times" in told and asked == 2


def test_nobody_there() -> None:
    with serving(lambda request, number: Reply("")) as endpoint:
        url = endpoint.url
    with pytest.raises(ValueError, match="cannot be reached"):
        ChatEndpoint(url, "tiny").complete(ASK, 0)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///etc/passwd", "is no address"),
        ("localhost:8000", "is no address"),
        ("http://[::1", "is no address"),
        ("http://host:no/v1", "is no address"),
        ("http://a b/", "is no address"),
        ("", "is no address"),
        ("http://me:word@host/v1", "expected a key in an environment variable"),
    ],
)
def test_addresses_that_cannot_be(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        ChatEndpoint(url, "tiny")
    assert "word@" not in str(raised.value)


def test_a_query_is_sent_but_not_told() -> None:
    with serving(lambda request, number: Reply(b"", 400)) as endpoint:
        with pytest.raises(ValueError) as raised:
            ChatEndpoint(f"{endpoint.url}/v1?api-version=1&key=hidden", "tiny").complete(ASK, 0)
        assert endpoint.requests[0].path == "/v1/chat/completions?api-version=1&key=hidden"
    assert "hidden" not in str(raised.value)


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="timeout must be above 0"):
        ChatEndpoint("http://localhost", "tiny", timeout=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        TransformersModel("tiny", max_new_tokens=0)


# --- models that run here -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaVA in transformers' form, with its processor and, for its Llama, a chat template."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    llava = twin(Llava(sizes=SIZES))
    llava.save_pretrained(folder / "llava")
    size = {"height": SIZES.image_size, "width": SIZES.image_size}
    images = CLIPImageProcessor(size=size, crop_size=size)
    processor = LlavaProcessor(
        images,
        load_compact_in_transformers(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder / "llava")
    from transformers import LlamaForCausalLM

    llama = LlamaForCausalLM(llava.config.text_config)
    tokenizer = load_compact_in_transformers()
    llama.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    )
    llama.save_pretrained(folder / "chat")
    tokenizer.save_pretrained(folder / "chat")
    return folder


def test_a_model_through_transformers(folder: Path) -> None:
    model = TransformersModel(str(folder / "chat"), device="cpu", max_new_tokens=8, temperature=1.0)
    before = torch.random.get_rng_state()
    first = model.complete(ASK, 1)
    assert isinstance(first, str) and first
    assert torch.equal(torch.random.get_rng_state(), before)
    again = pickle.loads(pickle.dumps(model))
    assert again._loaded is None and again.complete(ASK, 1) == first
    assert len({model.complete(ASK, seed) for seed in range(4)}) > 1
    greedy = TransformersModel(str(folder / "chat"), device="cpu", max_new_tokens=8, temperature=0)
    assert greedy.complete(ASK, 1) == greedy.complete(ASK, 2)


def test_models_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        TransformersModel(str(folder / "plain"), device="cpu").complete(ASK, 0)
    for lacking in (TransformersModel(str(tmp_path / "none")), TransformersCaptioner(str(tmp_path / "none"))):
        with pytest.raises(FileNotFoundError, match="hf download"):
            lacking._load()


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_published_llava_captions(folder: Path) -> None:
    captioner = TransformersCaptioner(str(folder / "llava"), device="cpu", max_new_tokens=5)
    caption = captioner.caption(picture())
    assert caption and captioner.caption(picture()) == caption
    assert pickle.loads(pickle.dumps(captioner))._loaded is None


def test_the_shipped_captioner_describes_scenes() -> None:
    captioner = RasCaptioner(device="cpu")
    assert captioner.name.startswith("ras ")
    right = 0
    for scene_id in scene_ids("test", 7, 6):
        scene = scene_of(scene_id)
        caption = captioner.caption(render(scene).image)
        right += any(one.category in caption for one in scene.objects)
    assert right >= 5  # of 20 categories a scene has two to five
    assert pickle.loads(pickle.dumps(captioner))._loaded is None


def test_captioners_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint sam is sam; expected a ras of stage 1"):
        RasCaptioner("sam")
    with pytest.raises(ValueError, match="checkpoint ras is ras, stage 2; expected a ras of stage 1"):
        RasCaptioner("ras")
    with pytest.raises(FileNotFoundError, match="not found"):
        RasCaptioner(str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        RasCaptioner(max_new_tokens=0)


# --- what is kept --------------------------------------------------------------------------------------------------


def test_a_kept_text_is_made_once(tmp_path: Path) -> None:
    kept, made = tmp_path / "kept", []

    def make() -> str:
        made.append(1)
        return f"text {len(made)} \ud800"

    assert kept_text(kept, {"seed": 1}, make) == kept_text(kept, {"seed": 1}, make) == "text 1 \ud800"
    assert kept_text(kept, {"seed": 2}, make) == "text 2 \ud800"
    for file in (tmp_path / "kept").iterdir():
        file.write_text("{")
    assert kept_text(kept, {"seed": 1}, make) == "text 3 \ud800"
    assert not list(tmp_path.rglob("*.part"))
