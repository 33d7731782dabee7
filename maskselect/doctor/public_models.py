"""Whether this machine can run the named models of public weights, and how fast: an estimate without any weights.

Networks are built on the meta device: by the config on this machine, or by published sizes before the download.

    memory      the weights in the dtype in which they are loaded, and WORKING for activations and the program
    FLOPs       two for each multiplication with an addition, for a picture of 4 to 3 whose longer side is at least as
                long as the model reads it: image encoder and decoder of the proposer for its grid of points; two crops
                of each of at most `max_candidates` candidates; the picture in the language model; for each prompt its
                text, and the shortlist in the language model. Transformers of the language model count 2 P for each
                token, P parameters, and 4 N D for each pair of token and key, N layers of width D.
    seconds     FLOPs by the rate of a large matrix product, measured here. Real networks reach a part of that rate, so
                the time is a lower bound.

Published sizes: SAM 2.1 and SigLIP 2 (the config.json of their repositories; arXiv 2408.00714 and 2502.14786); those of
language models are in `lmm/loading.py`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from maskselect.backends.building import make
from maskselect.backends.config_tree import Node
from maskselect.backends.terminal import console, narrow_table, print_table
from maskselect.backends.weightless import weightless
from maskselect.doctor.devices import cuda_count, device_room
from maskselect.structures.protocols import LanguageModel
from maskselect.systems.named_models import NamedModel, local_folder, names, placed, read, size_of
from maskselect.systems.zero_shot import ZeroShot

WORKING = 2 * 2**30
"""Bytes for activations, key-value caches and the program."""
QUESTION_TOKENS = 96
"""Tokens of a question with the chat template, typically."""

_HIERA_TINY: dict[str, Any] = {}  # the default of transformers
_HIERA_BASE_PLUS: dict[str, Any] = dict(
    hidden_size=112, num_attention_heads=2, blocks_per_stage=[2, 3, 16, 3], embed_dim_per_stage=[112, 224, 448, 896],
    num_attention_heads_per_stage=[2, 4, 8, 16], window_size_per_stage=[8, 4, 14, 7],
    global_attention_blocks=[12, 16, 20], window_positional_embedding_background_size=[14, 14],
)  # fmt: skip
_SAM2 = {
    "facebook/sam2.1-hiera-tiny": (_HIERA_TINY, [768, 384, 192, 96]),
    "facebook/sam2.1-hiera-base-plus": (_HIERA_BASE_PLUS, [896, 448, 224, 112]),
}
"""Of the encoder: settings, and the channels of its levels."""
_SO400M: dict[str, Any] = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
_SIGLIP2: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "google/siglip2-base-patch16-224": ({}, {}),
    "google/siglip2-so400m-patch14-384": (_SO400M, {**_SO400M, "image_size": 384, "patch_size": 14}),
}
"""Of text and vision encoder; the defaults of transformers are those of the base size."""
_GEMMA_WORDS = 256_000


@dataclass(frozen=True)
class Cost:
    """What a named model takes.

    Attributes:
        model: the model.
        parts, here: the number of its parts, and of those on this machine.
        download: bytes that are still to be downloaded, by the sizes of the networks.
        memory: bytes.
        picture, prompt: FLOPs by dtype.
    """

    model: NamedModel
    parts: int
    here: int
    download: int
    memory: int
    picture: Mapping[torch.dtype, float]
    prompt: Mapping[torch.dtype, float]


def cost_of(model: NamedModel, device: torch.device) -> Cost:
    """The cost of a named model whose system is a `ZeroShot`, on a device.

    Raises:
        ValueError: it is another system, or has a part of unknown size that is not on this machine.
    """
    top = Node.of(placed(model.system, device))
    if top is None or not top.path.endswith(f".{ZeroShot.__name__}"):
        raise ValueError(f"model {model.name} is no {ZeroShot.__name__}; its cost is not known")
    parts = {key: Node.of(top.arguments.get(key)) for key in ("proposer", "similarity", "lmm")}
    proposer, similarity, lmm = parts["proposer"], parts["similarity"], parts["lmm"]
    if proposer is None or similarity is None:
        raise ValueError(f"model {model.name} lacks a proposer or a similarity; expected both")
    sam, texts = _network(proposer), _network(similarity)
    loaded = [sam.to(torch.float32), _cast(texts, similarity)]
    candidates = int(proposer.arguments.get("max_candidates") or 100)
    points = int(proposer.arguments.get("points_per_side") or 32) ** 2
    picture = {torch.float32: _sam_flops(sam, points)}
    dtype = next(texts.parameters()).dtype
    image, text = _siglip_flops(texts)
    picture[dtype] = picture.get(dtype, 0.0) + 2 * candidates * image
    prompt = {dtype: text}
    if lmm is not None:
        language = _language_model(lmm)
        loaded.append(cast(nn.Module, language))
        once, each = _verifier_flops(language, top.arguments)
        held = next(cast(nn.Module, language).parameters()).dtype
        picture[held] = picture.get(held, 0.0) + once
        prompt[held] = prompt.get(held, 0.0) + each
    sizes = [sum(parameter.nbytes for parameter in network.parameters()) for network in loaded]
    links = [str(node.arguments.get("model")) for node in (proposer, similarity, lmm) if node is not None]
    here = [not link.startswith("hf://") or local_folder(link) is not None for link in links]
    stored = [size for size, present in zip(_stored(loaded), here, strict=True) if not present]
    return Cost(model, len(links), sum(here), sum(stored), sum(sizes) + WORKING, picture, prompt)


def _stored(networks: Sequence[nn.Module]) -> list[int]:
    """Bytes of the files: proposer and similarity are published in single precision, language models in half."""
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    return [4 * count for count in counts[:2]] + [2 * count for count in counts[2:]]


def _network(node: Node) -> nn.Module:
    """The network of a proposer or of an image-text model, on the meta device."""
    from transformers import AutoConfig, AutoModel, Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig, SiglipConfig  # noqa: PLC0415

    link = str(node.arguments.get("model"))
    folder = local_folder(link) if link.startswith("hf://") else link
    repository = link.removeprefix("hf://").partition("@")[0]
    config: Any
    if folder is not None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type.startswith("sam2"):
            config = Sam2Config.from_pretrained(folder, local_files_only=True)
    elif repository in _SAM2:
        settings, channels = _SAM2[repository]
        backbone = Sam2HieraDetConfig(**settings)
        config = Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=channels))
    elif repository in _SIGLIP2:
        text, vision = _SIGLIP2[repository]
        config = SiglipConfig(text_config={**text, "vocab_size": _GEMMA_WORDS}, vision_config=vision)
    else:
        raise ValueError(f"the sizes of {link} are not known before its download; expected it on this machine")
    with torch.device("meta"):
        return cast(nn.Module, AutoModel.from_config(config)).eval().requires_grad_(False)


def _cast(network: nn.Module, node: Node) -> nn.Module:
    name = node.arguments.get("dtype")
    return network if name is None else network.to(getattr(torch, str(name)))


def _language_model(node: Node) -> LanguageModel:
    """The language model on the meta device."""
    link = str(node.arguments.get("model"))
    folder = local_folder(link) if link.startswith("hf://") else None
    model = str(folder) if folder is not None else link.removeprefix("hf://").partition("@")[0]
    try:
        with weightless():
            return cast(LanguageModel, make(Node(node.path, {**node.arguments, "model": model})))
    except FileNotFoundError as error:
        raise ValueError(f"the sizes of {link} are not known before its download") from error


def _counted(run: Callable[[], Any]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _sam_flops(sam: Any, points: int) -> float:
    """FLOPs of the image encoder, and of the decoder for a number of points."""
    side = int(sam.config.prompt_encoder_config.image_size)
    pixels = torch.zeros(1, 3, side, side, dtype=torch.float32, device="meta")
    encoder = _counted(lambda: sam.get_image_embeddings(pixels))
    with torch.no_grad():
        maps = list(sam.get_image_embeddings(pixels))

    def decode(count: int) -> Any:
        given = torch.zeros(1, count, 1, 2, dtype=torch.float32, device="meta")
        labels = torch.ones(1, count, 1, dtype=torch.int32, device="meta")
        return sam(input_points=given, input_labels=labels, image_embeddings=maps)

    return encoder + points * (_counted(lambda: decode(3)) - _counted(lambda: decode(2)))


def _siglip_flops(network: Any) -> tuple[float, float]:
    """FLOPs of a picture and of a text."""
    vision, text = network.config.vision_config, network.config.text_config
    dtype = next(network.parameters()).dtype
    pixels = torch.zeros(1, 3, vision.image_size, vision.image_size, dtype=dtype, device="meta")
    ids = torch.zeros(1, text.max_position_embeddings, dtype=torch.int64, device="meta")
    image = _counted(lambda: network.get_image_features(pixels))
    return image, _counted(lambda: network.get_text_features(ids))


def _verifier_flops(lmm: Any, settings: Mapping[str, Any]) -> tuple[float, float]:
    """FLOPs of the language model for a picture, and for the shortlist of a prompt."""
    sides = {"picture_side": 1024, "view_side": 448, "crop_side": 224} | {
        name: value for name, value in settings.items() if name.endswith("_side")
    }
    tokens = {name: _tokens(lmm, int(side)) for name, side in sides.items()}
    prefix = tokens["picture_side"] + QUESTION_TOKENS
    region = tokens["view_side"] + tokens["crop_side"]
    once = _tower(lmm, tokens["picture_side"]) + _decoder(lmm, prefix, 0)
    each = _tower(lmm, region) + _decoder(lmm, region + QUESTION_TOKENS, prefix)
    return once, int(settings.get("shortlist", 24)) * each


def _tokens(lmm: Any, side: int) -> int:
    """Image tokens of a picture of 4 to 3."""
    grid = lmm.image_grid(side * 3 // 4, side)
    return int(lmm.most_image_tokens) if grid is None else grid[0] * grid[1]


def _tower(lmm: Any, tokens: int) -> float:
    vision = lmm.model.config.vision_config
    patches = tokens * int(getattr(vision, "spatial_merge_size", 1)) ** 2
    return 2.0 * patches * sum(parameter.numel() for parameter in lmm.vision_tower.parameters())


def _decoder(lmm: Any, tokens: int, before: int) -> float:
    text = lmm.model.config.text_config
    layers = sum(parameter.numel() for parameter in lmm.language_model.layers.parameters())
    pairs = tokens * (before + (tokens + 1) / 2)
    return 2.0 * layers * tokens + 4.0 * text.num_hidden_layers * text.hidden_size * pairs


def rates(device: torch.device, dtypes: Sequence[torch.dtype]) -> dict[torch.dtype, float]:
    """FLOPs a second of a large matrix product on a device, by dtype."""
    cuda = device.type == "cuda"
    side = 8192 if cuda else 1024
    found = {}
    for dtype in dtypes:
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        best = float("inf")
        for _ in range(4):  # the first is a warm-up, and other programs may disturb
            start = time.perf_counter()
            matrix @ matrix
            if cuda:
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        found[dtype] = 2.0 * side**3 / best
    return found


def print_models(wanted: Sequence[str]) -> bool:
    """Print what named models take, and whether this machine can run them.

    Args:
        wanted: names or files; empty for all shipped ones.

    Returns:
        Whether all fit into memory.

    Raises:
        FileNotFoundError, ValueError: as `named_models.read` and `cost_of`.
    """
    device, room = torch.device("cuda" if cuda_count() else "cpu"), device_room({})
    costs = [cost_of(read(name), device) for name in wanted or names()]
    dtypes = list(dict.fromkeys(dtype for cost in costs for dtype in (*cost.picture, *cost.prompt)))
    speed = rates(device, dtypes)
    table = narrow_table("model", "here", "download", "memory", "fits", "TFLOP", "s", "TFLOP", "s")
    for cost in costs:
        fits = room.size is not None and cost.memory <= room.size
        row = [cost.model.name, f"{cost.here}/{cost.parts}", size_of(cost.download) if cost.download else "–"]
        row += [size_of(cost.memory), "yes" if fits else "no"]
        for flops in (cost.picture, cost.prompt):
            seconds = sum(count / speed[dtype] for dtype, count in flops.items())
            row += [_short(sum(flops.values()) / 1e12), _short(seconds)]
        table.add_row(*row)
    print_table(table, "named models: parts here; then for a picture, and for each prompt about it")
    size = "unknown" if room.size is None else size_of(room.size)
    measured = ", ".join(f"{_short(r / 1e12)} TFLOP/s in {str(d).removeprefix('torch.')}" for d, r in speed.items())
    screen = console()
    screen.print(f"{room.name}: {size}; a large matrix product reaches {measured}.", markup=False, soft_wrap=True)
    screen.print(
        "Memory is weights and 2 GiB; seconds are a lower bound at that rate. Nothing here was measured with the "
        "models. Download one: maskselect download NAME",
        markup=False,
        soft_wrap=True,
    )
    return all(room.size is not None and cost.memory <= room.size for cost in costs)


def _short(number: float) -> str:
    """Two digits, or all before the point."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"
