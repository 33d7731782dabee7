"""LLM-Seg's forward pass from the released tensors alone, plainly, in float32; nothing of ours is used."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerBase,
)

from tests.importers.release import TOWER, M, Sizes

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Reference:
    """One release at hand. heads: of the fusion."""

    def __init__(self, tensors: dict[str, Tensor], sizes: Sizes, heads: int, alpha: float) -> None:
        self.tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        self.sizes, self.heads = sizes, heads
        self.llama = self._llama(alpha / sizes.lora)
        self.tower = self._tower()

    def _llama(self, scale: float) -> LlamaModel:
        sizes = self.sizes
        config = LlamaConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            intermediate_size=sizes.ffn,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            rms_norm_eps=1e-6,
        )
        model = LlamaModel(config).eval()
        own = {n.removeprefix(M): t for n, t in self.tensors.items() if n.startswith(M)}
        state = {n: own[n].clone() for n in model.state_dict()}
        for n in range(sizes.layers):
            for x in "qv":
                layer = f"layers.{n}.self_attn.{x}_proj."
                state[layer + "weight"] += (
                    scale * own[layer + "lora_B.default.weight"] @ own[layer + "lora_A.default.weight"]
                )
        model.load_state_dict(state)
        return model

    def _tower(self) -> CLIPVisionModel:
        sizes = self.sizes
        config = CLIPVisionConfig(
            hidden_size=sizes.vision,
            intermediate_size=sizes.vision_ffn,
            num_hidden_layers=sizes.vision_layers,
            num_attention_heads=1,
            image_size=sizes.grid * sizes.patch,
            patch_size=sizes.patch,
        )
        model = CLIPVisionModel(config).eval()
        own = {n.removeprefix(TOWER): t for n, t in self.tensors.items() if n.startswith(TOWER)}
        model.load_state_dict({n: own[n.removeprefix("vision_model.")] for n in model.state_dict()})
        return model

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{M}{name}.weight"], self.tensors[f"{M}{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{M}{name}.weight"], self.tensors[f"{M}{name}.bias"])

    def attention(self, name: str, queries: Tensor, keys: Tensor) -> Tensor:
        """(N, C) and (S, C) to (N, C), head by head."""
        q, k, v = (self.linear(f"{name}.{x}_proj", t) for x, t in (("q", queries), ("k", keys), ("v", keys)))
        size = q.shape[1] // self.heads
        parts = []
        for h in range(self.heads):
            own = slice(h * size, (h + 1) * size)
            parts.append(torch.softmax(q[:, own] @ k[:, own].T / size**0.5, -1) @ v[:, own])
        return self.linear(f"{name}.out_proj", torch.cat(parts, 1))

    def mask_features(self, image_map: Tensor, masks: Tensor) -> Tensor:
        """The convolution, the map enlarged four times, pooling by soft masks: (C, h, w), (N, H, W) bool to (N, E)."""
        kernel, bias = self.tensors[M + "lisa_dino_conv.weight"], self.tensors[M + "lisa_dino_conv.bias"]
        fine = (4 * image_map.shape[1], 4 * image_map.shape[2])
        enlarged = F.interpolate(F.conv2d(image_map[None], kernel, bias), fine, mode="bilinear")[0]
        side = max(masks.shape[1:])
        square = F.pad(masks.float(), (0, side - masks.shape[2], 0, side - masks.shape[1]))
        soft = F.interpolate(square[:, None], fine, mode="bilinear", antialias=True)[:, 0]
        total = torch.einsum("nhw,chw->nc", soft, enlarged)
        return total / (soft.sum((1, 2))[:, None] + 1e-8)

    def ids(self, words: PreTrainedTokenizerBase, question: str) -> list[int]:
        """What is read up to `[SEG]`; -200 stands for the image. One piece of text between added tokens, as the release
        tokenised them: spaces and line breaks beside them were swallowed."""
        start, end = words.convert_tokens_to_ids(["<im_start>", "<im_end>"])
        before = words(f"{SYSTEM} USER:", add_special_tokens=False)["input_ids"]
        after = words(f"{question} ASSISTANT:", add_special_tokens=False)["input_ids"]
        return [words.bos_token_id, *before, start, -200, end, *after]

    @torch.no_grad()
    def hidden(self, ids: list[int], image: np.ndarray) -> Tensor:
        """The last hidden state, at the position that predicts `[SEG]`."""
        side = self.sizes.grid * self.sizes.patch
        prepare = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side)
        pixels = prepare(Image.fromarray(image), return_tensors="pt")["pixel_values"]
        seen = self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        place = ids.index(-200)
        table = self.tensors[M + "embed_tokens.weight"]
        parts = [table[ids[:place]], self.linear("mm_projector", seen[0]), table[ids[place + 1 :]]]
        return self.llama(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[0, -1]

    @torch.no_grad()
    def judge(self, hidden: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine similarity and IoP of each mask: (D,), (N, E) to (N,), (N,)."""
        text = self.linear("text_hidden_fcs.0.2", F.relu(self.linear("text_hidden_fcs.0.0", hidden)))
        keys = text[None]
        for n in range(self.sizes.depth):
            block = f"lisa_attention_layers.{n}."
            masks = self.norm(block + "norm1", masks + self.attention(block + "self_attn", masks, masks))
            masks = self.norm(block + "norm2", masks + self.attention(block + "cross_attn_token_to_image", masks, keys))
            inner = self.linear(block + "mlp.lin2", F.relu(self.linear(block + "mlp.lin1", masks)))
            masks = self.norm(block + "norm3", masks + inner)
            keys = self.norm(block + "norm4", keys + self.attention(block + "cross_attn_image_to_token", keys, masks))
        masks = self.norm("lisa_norm_final_attn", masks + self.attention("lisa_final_attn", masks, keys))
        iop = self.linear("lisa_iou_head.2", F.relu(self.linear("lisa_iou_head.0", masks)))[:, 0].sigmoid()
        found = self.linear("lisa_embedding_head.2", F.relu(self.linear("lisa_embedding_head.0", masks)))
        return F.cosine_similarity(found, text[None]), iop
