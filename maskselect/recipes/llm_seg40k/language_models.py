"""Language models for builders: behind any OpenAI-compatible endpoint, or local through transformers."""

import email.utils
import json
import os
import random
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from time import sleep
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from maskselect.backends.devices import pick_device
from maskselect.backends.optional import lazy

httpx2 = lazy("httpx2", "data")
openai = lazy("openai", "data")

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

LONGEST_WAIT = 300.0
"""Seconds; a longer Retry-After ends the build."""
_AGAIN = (408, 425, 429)


class LanguageModel(Protocol):
    """Answers a conversation. It must be picklable, and load or connect at first use.

    Attributes:
        name: identifies the model and everything else that its answers depend on; builds are compared by it.
    """

    name: str

    def complete(self, messages: list[Message], seed: int) -> str:
        """The next message of the assistant. Equal arguments should give equal answers.

        Raises:
            ValueError, OSError: the model cannot answer.
        """
        ...


class ChatEndpoint:
    """A model behind an endpoint with OpenAI's chat completions API: OpenAI, vLLM, llama.cpp, Ollama and others.

    The client is the package `openai`.

    Args:
        url: of the server, its `/v1`, or the whole `…/chat/completions`; http or https.
        model: name of the model at the endpoint.
        key_variable: environment variable with the key; without it no key is sent. The key is read for each request, is
            not an attribute of this object, and is in no message.
        timeout: seconds without a byte after which a request fails.
        retries: number of repetitions after a time-out, a broken connection, status 429 or 5xx.
        pause: seconds before the first repetition, doubled each time; a longer `Retry-After` takes precedence.
        temperature: sent unless None; some models refuse it.
        max_tokens: sent unless None; some models refuse it.

    Raises:
        ValueError: the address or a number is invalid.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        retries: int = 6,
        pause: float = 1.0,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if timeout <= 0 or retries < 0 or pause < 0:
            raise ValueError(
                f"timeout must be above 0, retries and pause at least 0; got {timeout}, {retries} and {pause}"
            )
        self._base, self._query = _address(url)
        self.url = f"{self._base}/chat/completions"
        self.model, self.key_variable = model, key_variable
        self.timeout, self.retries, self.pause = timeout, retries, pause
        options = {"temperature": temperature, "max_tokens": max_tokens}
        self.options = {name: value for name, value in options.items() if value is not None}
        self.name = " ".join([model, *(f"{name}={value}" for name, value in self.options.items())])
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    def complete(self, messages: list[Message], seed: int) -> str:
        """The answer; "" if the model refused.

        Raises:
            ValueError: the endpoint keeps failing, or its reply has another form.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._content(self._ask(messages, seed))
            except _TryAgainError as trouble:
                if attempt == self.retries:
                    raise ValueError(f"{self.url} failed {attempt + 1} times, at last so: {trouble}") from None
                # The jitter keeps processes that were rejected together from returning together.
                sleep(max(trouble.wait, self.pause * 2**attempt * random.uniform(0.75, 1.25)))
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, messages: list[Message], seed: int) -> str:
        """The body of the reply, not parsed: the package would accept any form."""
        key = self._key()
        if self._client is None:
            # A redirect would send the key to another server. `complete` retries, with its own limits.
            plain = openai.DefaultHttpxClient(follow_redirects=False, timeout=self.timeout)
            self._client = openai.OpenAI(
                api_key="unused", base_url=self._base, default_query=self._query, max_retries=0, http_client=plain
            )
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=messages,
                seed=seed,
                extra_headers={"Authorization": f"Bearer {key}" if key else openai.Omit()},
                timeout=self.timeout,
                **self.options,
            )
            return str(reply.text)
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APITimeoutError:
            raise _TryAgainError(f"no answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError):
                raise ValueError(
                    f"{self.url} cannot be reached: {error.__cause__}; is the address right and the server up?"
                ) from None
            raise _TryAgainError("the connection broke off") from None

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        # The client would quote the key in its error.
        if not all(" " < letter <= "~" for letter in key):
            raise ValueError(
                f"the key in {self.key_variable} has blanks or letters that no key has; expected plain ASCII"
            )
        return key

    def _refusal(self, error: Any) -> Exception:
        """The error to raise for an `openai.APIStatusError`: try again, or a message."""
        status = error.status_code
        if status in _AGAIN or status >= 500:
            wait = _retry_after(error.response.headers.get("Retry-After"))
            if wait > LONGEST_WAIT:
                return ValueError(f"{self.url} asks to wait {wait:.0f} s, more than {LONGEST_WAIT:.0f}; go on later")
            return _TryAgainError(f"status {status}", wait)
        if status in (401, 403):
            # Not the endpoint's text: it may quote the key.
            state = "set" if os.environ.get(self.key_variable) else "not set"
            return ValueError(
                f"{self.url} refused access (status {status}); the key is read from the environment variable "
                f"{self.key_variable}, which is {state}"
            )
        body = error.body
        text = body.get("message", body) if isinstance(body, Mapping) else body or error.response.reason_phrase
        message = self._without_key(" ".join(str(text).split())[:200])
        return ValueError(f"{self.url} refused the request for model {self.model!r} (status {status}): {message}")

    def _without_key(self, text: str) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        return text.replace(key, "…") if key else text

    def _content(self, reply: str) -> str:
        try:
            content = json.loads(reply)["choices"][0]["message"]["content"]
            if not isinstance(content, str | None):
                raise TypeError
            return content or ""
        except (ValueError, RecursionError, KeyError, IndexError, TypeError):
            start = self._without_key(reply[:60])
            raise ValueError(
                f"{self.url} answered {start!r}; expected JSON with the text choices[0].message.content"
            ) from None


class TransformersModel:
    """A local instruction-tuned model with its chat template, loaded at the first question.

    Args:
        name: hub id or folder.
        device: auto, cpu or cuda.
        max_new_tokens: longest answer.
        temperature: 0 for greedy decoding; otherwise tokens are sampled with the seed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, name: str, device: str = "auto", max_new_tokens: int = 512, temperature: float = 0.7) -> None:
        if max_new_tokens < 1 or temperature < 0:
            raise ValueError(
                f"max_new_tokens must be at least 1 and temperature at least 0; got {max_new_tokens} and {temperature}"
            )
        self.model_name, self.device = name, device
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.name = f"{name} temperature={temperature} max_new_tokens={max_new_tokens}"
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    @torch.inference_mode()
    def complete(self, messages: list[Message], seed: int) -> str:
        """The answer.

        Raises:
            FileNotFoundError: the model cannot be loaded.
            ValueError: the model has no chat template.
        """
        tokenizer, model = self._load()
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        inputs = inputs.to(model.device)
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            out = model.generate(**inputs, max_new_tokens=self.max_new_tokens, **sampling)
        return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            device = pick_device(self.device)
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.model_name)
                model = AutoModelForCausalLM.from_pretrained(self.model_name, dtype="auto").to(device).eval()
            except OSError as error:
                raise FileNotFoundError(
                    f"language model {self.model_name!r} could not be loaded; expected a folder or a hub id "
                    f"(get it with: hf download {self.model_name})"
                ) from error
            if not tokenizer.chat_template:
                raise ValueError(
                    f"language model {self.model_name!r} has no chat template; expected an instruction-tuned one"
                )
            self._loaded = tokenizer, model
        return self._loaded


class _TryAgainError(Exception):
    """A request that may succeed later. `wait`: seconds by the endpoint's Retry-After."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def _address(url: str) -> tuple[str, dict[str, str]]:
    """The address of the API for requests and messages, and the values of its query, which may be secret."""
    try:
        parts = urllib.parse.urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port, or an open bracket
        usable = False
    if not usable or not all(" " < letter <= "~" for letter in url.strip()):
        shown = url.partition("?")[0].rpartition("@")[2]
        raise ValueError(f"endpoint {shown!r} is no address; expected one such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise ValueError(
            f"the endpoint at {parts.hostname} has a name or password in its address; expected a key in an "
            "environment variable"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    path += "" if path.endswith("/v1") or parts.path.rstrip("/") != path else "/v1"
    return parts._replace(path=path, query="", fragment="").geturl(), dict(
        urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    )


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date; 0 for anything else."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
