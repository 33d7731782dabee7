"""A Flamingo perceiver resampler written from the public one, by functions and its own tensor names.

lucidrains/flamingo-pytorch (MIT), flamingo_pytorch/flamingo_pytorch.py: `PerceiverAttention.forward`, `FeedForward` and
`PerceiverResampler.forward`, without the embedding of the time of a frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resample(weights: dict[str, Tensor], media: Tensor, latents: Tensor, heads: int, read: int | None = None) -> Tensor:
    """(M, D) and (N, D) to (N, D). read: how many latents are keys, in InstructSeg's variant; None for all."""
    width, depth = latents.shape[1], 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    for number in range(depth):
        attention, mlp = f"layers.{number}.0.", f"layers.{number}.1."
        normed = norm(latents, attention + "norm_latents")
        source = torch.cat([norm(media, attention + "norm_media"), normed[:read]])
        query = normed @ weights[attention + "to_q.weight"].T
        key, value = (source @ weights[attention + "to_kv.weight"].T).split(query.shape[1], 1)
        size = query.shape[1] // heads
        mixed = []
        for head in range(heads):
            one = slice(head * size, (head + 1) * size)
            similarity = (query[:, one] * size**-0.5) @ key[:, one].T
            similarity = similarity - similarity.max(1, keepdim=True).values
            mixed.append(similarity.softmax(1) @ value[:, one])
        latents = torch.cat(mixed, 1) @ weights[attention + "to_out.weight"].T + latents
        inner = F.gelu(norm(latents, mlp + "0") @ weights[mlp + "1.weight"].T)
        latents = inner @ weights[mlp + "3.weight"].T + latents
    return norm(latents, "norm")
