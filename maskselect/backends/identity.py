"""What makes a part of a system the part it is: its weights and its settings, as a digest."""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn


def identity(parts: Iterable[object], beginning: bytes = b"") -> str:
    """Twelve hex digits over weights and settings of parts, at any depth. beginning: bytes that go in first."""
    digest = hashlib.sha256(beginning)
    for part in parts:
        _add(part, digest)
    return digest.hexdigest()[:12]


def _add(part: object, digest: "hashlib._Hash") -> None:
    """Weights of a module, settings of anything of ours, and the same of what it holds: a proposer within another."""
    if isinstance(part, nn.Module):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if not type(part).__module__.startswith("maskselect."):
        return  # what transformers keeps beside its weights changes as it runs
    settings = {k: v for k, v in vars(part).items() if k != "training" and isinstance(v, int | float | str)}
    digest.update(repr((type(part).__name__, sorted(settings.items()))).encode())
    if not isinstance(part, nn.Module):
        for held in vars(part).values():
            if isinstance(held, nn.Module) or type(held).__module__.startswith("maskselect."):
                _add(held, digest)
