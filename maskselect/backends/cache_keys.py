"""Cache keys of results, composed of declared settings and a digest of the weights."""

import hashlib
import json
from dataclasses import is_dataclass

import torch
from torch import nn

from maskselect.structures.protocols import Cacheable


def cache_key(name: str, /, **settings: object) -> str:
    """Twelve hex digits: a digest of the name of a class and everything that determines its results.

    Args:
        name: name of the class.
        settings: plain values, dataclasses, `Cacheable` parts, and other modules, which count by their weights; also in
            lists and mappings. Omit what changes no result, such as a device.

    Raises:
        TypeError: a setting is of another type, for example a part without a `cache_key`.
    """
    text = json.dumps([name, settings], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_digest(module: nn.Module) -> str:
    """Digest of names, shapes, dtypes and values of all parameters and buffers, on any device.

    Tensors on the meta device have no values.
    """
    digest = hashlib.sha256()
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())  # a state dict lacks some buffers
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name};{tuple(tensor.shape)};{tensor.dtype};".encode())
        if not tensor.is_meta:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Cacheable):
        return value.cache_key()
    if isinstance(value, nn.Module):
        return weights_digest(value)
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    raise TypeError(f"{type(value).__name__} has no cache_key(), so nothing that depends on it can be cached")
