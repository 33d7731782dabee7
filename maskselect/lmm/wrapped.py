"""The base of all families of language models: embeddings in, hidden states out.

The network is one of transformers, or the compact one, which has the same names and does not import transformers. Its
parts are `model.visual` or `model.vision_tower`, then `model.language_model`, then `lm_head`. Image features and chat
templates differ between families and are in their own files.

Shape letters: B rows, L sequence positions, K keys, D language-model width, V words.
"""

import inspect
import zlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import cache as remember
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from maskselect.lmm.compact import CompactLlava
from maskselect.lmm.llama import KeyValueCache
from maskselect.lmm.lora import LoraSettings, add_lora
from maskselect.structures.generation import Generated, LogitsProcessor

Quantize = Literal["nf4"]


def check_quantize(quantize: str | None, model: str | None, lora: object | None) -> None:
    """Raise ValueError if 4 bits are set without a `model` to quantise or without LoRA to train."""
    if quantize is not None and (model is None or lora is None):
        raise ValueError("quantize freezes the weights of a `model`, on which then `lora` trains; give both")


def recompute_activations(network: nn.Module) -> None:
    """Make a network of transformers recompute its layers' activations in the backward pass."""
    model: Any = network
    enable = getattr(model, "activation_checkpointing_enable", None)  # absent in older versions of transformers
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


@remember
def cache_argument(network: type[nn.Module]) -> str:
    """The name of the argument for the key-value cache: transformers renames "past_key_values" to "cache"."""
    return "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"


class Wrapped(nn.Module):
    """A network with its tokenizer; each family is a subclass.

    Attributes:
        tokenizer: a tokenizer of transformers, or a `CompactTokenizer`.
        model: the network.
        strip_added: whether added tokens strip the spaces around them.
        gradient_checkpointing: whether activations are recomputed in the backward pass.
        has_own_files: whether files other than a checkpoint hold the frozen weights.
        images_on_grids: whether the tokens of an image form a grid that depends on its size, see `image_grid`.
    """

    tokenizer: Any
    model: Any
    strip_added: bool = False
    gradient_checkpointing: bool = False
    has_own_files: bool = False
    images_on_grids: bool = False

    def add_token(self, text: str, special: bool = False) -> int:
        """The id of a token, which is added to vocabulary and embeddings if absent.

        Args:
            text: the token.
            special: whether decoded text leaves it out.
        """
        if text not in self.tokenizer.get_vocab():
            strip = self.strip_added
            token = AddedToken(text, lstrip=strip, rstrip=strip, normalized=False, special=special)
            self.tokenizer.add_tokens([token], special_tokens=special)
        known, rows = len(self.tokenizer), self.model.get_input_embeddings().num_embeddings
        if known > rows:  # published vocabularies have spare rows
            self.model.resize_token_embeddings(known, mean_resizing=False)
            self._draw_rows(rows, text)
        return int(self.tokenizer.convert_tokens_to_ids(text))

    @torch.no_grad()
    def _draw_rows(self, first: int, text: str) -> None:
        """Draw embeddings from row `first` on, and their rows of the LM head, with the mean and spread of the others.

        The seed comes from the token's text: no checkpoint holds frozen rows, so they must be reproducible.
        """
        inputs, outputs = self.model.get_input_embeddings().weight, self.model.get_output_embeddings().weight
        for weight in (inputs,) if outputs is inputs else (inputs, outputs):
            generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
            drawn = torch.randn(len(weight) - first, weight.shape[1], generator=generator, dtype=torch.float32).to(
                weight.device
            )
            known = weight[:first].float()
            weight[first:] = (known.mean(0) + known.std(0) * drawn).to(weight.dtype)

    def checkpoint_activations(self) -> None:
        """Recompute the language model's activations in the backward pass, which saves memory."""
        self.gradient_checkpointing = True
        recompute_activations(self.language_model)

    def upcast_trained(self) -> None:
        """Convert the parts that systems train beside LoRA to float32."""
        for part in (self.model.get_input_embeddings(), self.model.lm_head, self.projector):
            part.float()

    def prepare_training(self, half: bool, lora: LoraSettings | None, gradient_checkpointing: bool) -> None:
        """Freeze the vision tower, and set up what trains.

        Args:
            half: frozen weights may be in half precision, so that trained parts are converted to float32.
            lora: LoRA on the language model; None trains all of it.
            gradient_checkpointing: see `checkpoint_activations`.
        """
        if half:
            self.upcast_trained()
        if lora is not None:
            add_lora(self.language_model, lora)
        if gradient_checkpointing:
            self.checkpoint_activations()
        self.vision_tower.requires_grad_(False)
        self.projector.requires_grad_(True)

    @property
    def vision_tower(self) -> nn.Module:
        """The vision tower."""
        return cast(nn.Module, self.model.model.vision_tower)

    @property
    def projector(self) -> nn.Module:
        """From image features to image tokens."""
        return cast(nn.Module, self.model.model.multi_modal_projector)

    @property
    def frozen_elsewhere(self) -> set[str]:
        """Names of frozen tensors that a checkpoint omits, because the model's own files hold them."""
        if not self.has_own_files:
            return set()
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        # The names of quantisation constants begin with those of their 4-bit weights.
        return {key for key in self.state_dict() if any(key == name or key.startswith(f"{name}.") for name in frozen)}

    @property
    def language_model(self) -> nn.Module:
        """The transformer over the sequence, without the LM head."""
        return cast(nn.Module, self.model.model.language_model)

    @property
    def output_layer(self) -> nn.Module | None:
        """The LM head; None when it is tied to the embeddings."""
        return None if self.model.config.tie_word_embeddings else cast(nn.Module, self.model.lm_head)

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def max_positions(self) -> int:
        """The maximum length of a sequence in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings: (..., L) int64 to (..., L, D) float32."""
        return cast(Tensor, self.model.get_input_embeddings()(token_ids).float())

    def hidden(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Last hidden states, after the final norm, (B, L, D) float32; see `LanguageModel.hidden`."""
        out = self._run(embeddings, visible, positions, cache, torch.is_grad_enabled())
        return cast(Tensor, out.last_hidden_state.float())

    def layer_states(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,
    ) -> list[Tensor]:
        """The input of every layer, then the last hidden states; the arguments are those of `hidden`.

        Each is (B, L, D); inputs are in the dtype of the layers, the last hidden states are float32.

        Gradients are recorded only if the language model trains or the embeddings need them.
        """
        trains = any(parameter.requires_grad for parameter in self.language_model.parameters())
        learns = torch.is_grad_enabled() and (trains or embeddings.requires_grad)
        with torch.set_grad_enabled(learns):
            out = self._run(embeddings, visible, positions, cache, learns, output_hidden_states=True)
        return [*out.hidden_states[:-1], out.last_hidden_state.float()]

    def attention(self, device: torch.device, learns: bool) -> AbstractContextManager[None]:
        """Select the attention kernels for a device.

        Training on the CPU uses plain matrix products: the fused kernel's backward pass takes twice as long (measured
        at the compact sizes). With gradient checkpointing the context would not cover the recomputation, so it is not
        used.
        """
        plain = device.type == "cpu" and learns and not self.gradient_checkpointing
        return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()

    def _run(
        self,
        embeddings: Tensor,
        visible: Tensor | None,
        positions: Tensor | None,
        cache: Any,
        learns: bool,
        **outputs: bool,
    ) -> Any:
        if positions is not None and positions.ndim == 3:
            positions = positions.permute(2, 0, 1)
        with self.attention(embeddings.device, learns):
            return self.language_model(
                inputs_embeds=embeddings.to(self._dtype),
                attention_mask=visible,
                position_ids=positions,
                use_cache=cache is not None,
                **{cache_argument(cast(Any, type(self.language_model))): cache},
                **outputs,
            )

    @property
    def _dtype(self) -> torch.dtype:
        """Dtype of the language model's weights."""
        language_model: Any = self.language_model
        return cast(torch.dtype, language_model.norm.weight.dtype)

    def new_cache(self) -> Any:
        """An empty key-value cache for `hidden`, with `layers` of `keys` and `values`, and `update`."""
        if isinstance(self.model, CompactLlava):
            return KeyValueCache()
        from transformers import DynamicCache  # noqa: PLC0415  slow to import

        return DynamicCache(config=self.model.config.text_config)

    def token_logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits: (..., D) to (..., V)."""
        return cast(Tensor, self.model.lm_head(hidden.to(self.model.lm_head.weight.dtype)))

    def token_ids(self, text: str, begin: bool = False) -> list[int]:
        """Ids of a text without special tokens; `begin` puts the begin token first if the tokenizer has one."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        has_begin = begin and self.tokenizer.bos_token_id is not None
        return [self.tokenizer.bos_token_id, *ids] if has_begin else ids

    @torch.no_grad()
    def generate(
        self,
        embeddings: Tensor,
        max_new_tokens: int = 48,
        *,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
        process: LogitsProcessor | None = None,
        stop: Collection[int] = (),
        cache: Any = None,
        before: Tensor | None = None,
        add: Callable[[list[list[int]]], Tensor] | None = None,
    ) -> Generated:
        """Greedy continuations of rows, in one batch; see `LanguageModel.generate`."""
        count, length = embeddings.shape[:2]
        device = embeddings.device
        rows = torch.arange(count, device=device)
        cache = self.new_cache() if cache is None else cache
        earlier = torch.zeros(count, 0, dtype=torch.bool, device=device) if before is None else before
        real = torch.ones(count, length, dtype=torch.bool, device=device) if valid is None else valid
        if positions is None:
            positions = torch.arange(earlier.shape[1], earlier.shape[1] + length, device=device).expand(count, -1)
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril() & real[:, None]
        mask = torch.cat([earlier[:, None].expand(-1, length, -1), causal], -1)[:, None]
        hidden = self.hidden(embeddings, mask, positions, cache)
        last = real.sum(1) - 1
        state, position = hidden[rows, last], positions[rows, last]
        visible = torch.cat([earlier, real], 1)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        ids: list[list[int]] = [[] for _ in range(count)]
        states: list[list[Tensor]] = [[] for _ in range(count)]
        for _ in range(max_new_tokens):
            logits = self.token_logits(state)
            token = (logits if process is None else process(ids, logits)).argmax(-1)
            for row in (~ended).nonzero()[:, 0].tolist():
                new = int(token[row])
                ended[row] = new == self.tokenizer.eos_token_id or new in stop
                if new != self.tokenizer.eos_token_id:
                    ids[row].append(new)
                    states[row].append(state[row])
            if bool(ended.all()):
                break
            visible = F.pad(visible, (0, 1), value=True)
            position = position + 1
            embedded = self.embed(token[:, None])
            if add is not None:
                embedded = embedded + add(ids)[:, None]
            state = self.hidden(embedded, visible[:, None, None], position[:, None], cache)[:, 0]
        return Generated(ids, [torch.stack(row) if row else state.new_zeros(0, state.shape[1]) for row in states])

    def decode(self, ids: list[int]) -> str:
        """Token ids to text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
