"""The networks of RAS and of its SAM as ONNX files, to run without PyTorch.

    features.onnx      square picture, masks           -> features of the masks
    read.onnx          small picture, features         -> keys and values of the picture, mask tokens
    answer.onnx        the output of read, one prompt  -> a score for each candidate
    sam_encoder.onnx   square picture                  -> image embedding
    sam_decoder.onnx   image embedding, prompts        -> low-res logits, predicted IoU
    tokenizer.json     the tokenizer of the prompts, for the package tokenizers
    selector.json      sizes, token ids and the selection threshold

`features` and `read` run once for a picture, `answer` once for a prompt. Numbers of masks, of tokens and of prompts of
SAM are free; the sizes of pictures are fixed. What is between the networks is not exported: resizing, the filters of
everything mode, and GrabCut. docs/guide/onnx.md describes every input.

Shape letters: N candidates, R references, C pooled channels, D width, L tokens of a prompt, K positions of the prefix,
P prompts of SAM, S side of a square picture in pixels.
"""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskselect.backends.optional import require
from maskselect.backends.sam import decode_prompts
from maskselect.backends.sam_network import Sam
from maskselect.lmm.compact import CompactLlava
from maskselect.lmm.image_square import CLIP_MEAN, CLIP_STD
from maskselect.lmm.llama import CachedLayer, KeyValueCache
from maskselect.lmm.llava import Llava
from maskselect.lmm.tokenizer import COMPACT_FILE
from maskselect.ops.atomic import atomic_folder, write_text
from maskselect.ops.pooling import cell_weights, mask_pool
from maskselect.ops.text import json_bytes
from maskselect.systems.ras import RAS
from maskselect.systems.scoring import ParallelScorer
from maskselect.tokens.mask_tokenizer import MaskTokenizer

OPSET = 18


@dataclass(frozen=True)
class Graph:
    """A network and how it is exported.

    Args:
        network: the module.
        inputs: an example of each input, by name.
        outputs: names of the outputs.
        free: the free axes of inputs and outputs, by name: number of the axis and its name.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    free: Mapping[str, Mapping[int, str]]


def export_onnx(system: object, folder: Path, threshold: float) -> list[Path]:
    """Write the networks of a compact RAS and of its SAM as ONNX.

    Args:
        system: the loaded system, on the CPU.
        folder: an absent or empty folder.
        threshold: the selection threshold of the system.

    Returns:
        The written files. Those of SAM are absent if the proposer has no SAM.

    Raises:
        ValueError: the system is no compact RAS with the parallel scorer, the folder has files, or the package onnx is
            not installed.
    """
    ras = _compact_ras(system).eval()
    require("onnxscript", "onnx")
    sam = _sam_of(ras)
    graphs = selector_graphs(ras) | ({} if sam is None else sam_graphs(sam))
    with atomic_folder(folder) as part:
        for name, graph in graphs.items():
            _write(graph, part / f"{name}.onnx")
        shutil.copyfile(COMPACT_FILE, part / "tokenizer.json")
        write_text(part / "selector.json", json_bytes(_facts(ras, sam, threshold)).decode())
    return sorted(folder.iterdir())


@torch.no_grad()
def selector_graphs(ras: RAS) -> dict[str, Graph]:
    """The networks `features`, `read` and `answer` of a compact RAS."""
    features, read, answer = Features(ras), Read(ras), Answer(ras)
    side, small = _side(ras), _small_side(ras)
    image = torch.rand(1, 3, side, side, dtype=torch.float32)
    masks = torch.zeros(3, side, side, dtype=torch.bool)
    masks[:, 8:40, 8:64] = True
    scores = torch.ones(3, dtype=torch.float32)
    pooled = features(image, masks, scores)
    thumb = torch.rand(1, 3, small, small, dtype=torch.float32)
    keys, values, candidates = read(thumb, pooled)
    ids = torch.tensor([5, 6, answer.pre_id, answer.pre_id + 1, 7], dtype=torch.int64)
    prefix = {2: "prefix"}
    return {
        "features": Graph(
            features,
            {"image": image, "masks": masks, "scores": scores},
            ["features"],
            {"masks": {0: "masks"}, "scores": {0: "masks"}, "features": {0: "masks"}},
        ),
        "read": Graph(
            read,
            {"image": thumb, "features": pooled},
            ["keys", "values", "candidates"],
            {"features": {0: "masks"}, "keys": prefix, "values": prefix, "candidates": {0: "masks"}},
        ),
        "answer": Graph(
            answer,
            {"keys": keys, "values": values, "candidates": candidates, "references": pooled[:2], "ids": ids},
            ["scores"],
            {
                "keys": prefix,
                "values": prefix,
                "candidates": {0: "masks"},
                "references": {0: "references"},
                "ids": {0: "tokens"},
                "scores": {0: "masks"},
            },
        ),
    }


@torch.no_grad()
def sam_graphs(sam: Sam) -> dict[str, Graph]:
    """The networks `sam_encoder` and `sam_decoder`."""
    encoder, decoder = SamEncoder(sam), SamDecoder(sam)
    side = int(sam.image_encoder.img_size)
    image = torch.rand(1, 3, side, side, dtype=torch.float32) * 255
    points = torch.tensor([[[10.0, 20.0], [0.0, 0.0]]] * 3, dtype=torch.float32)
    labels = torch.tensor([[1.0, -1.0]] * 3, dtype=torch.float32)
    prompts = {0: "prompts", 1: "points"}
    return {
        "sam_encoder": Graph(encoder, {"image": image}, ["embedding"], {}),
        "sam_decoder": Graph(
            decoder,
            {"embedding": encoder(image), "points": points, "labels": labels},
            ["logits", "iou"],
            {"points": prompts, "labels": prompts, "logits": {0: "prompts"}, "iou": {0: "prompts"}},
        ),
    }


class Features(nn.Module):
    """Features of masks on a square picture, as `EncoderEnsemble.pool` computes them."""

    def __init__(self, ras: RAS) -> None:
        super().__init__()
        self.encoders, self.proposal_score = ras.encoders, ras.proposal_score

    def forward(self, image: Tensor, masks: Tensor, scores: Tensor) -> Tensor:
        """Picture (1, 3, S, S) in [0, 1], masks (N, S, S) bool and the scores (N,) of the proposer: (N, C)."""
        parts = []
        for found in self.encoders.encode(image):
            grid = (found.features.shape[-2], found.features.shape[-1])
            parts.append(mask_pool(found.features[0], cell_weights(masks, grid, self.encoders.mask_resize)))
        if self.encoders.geometry:
            parts.append(_geometry(masks))
        return torch.cat([*parts, scores[:, None]] if self.proposal_score else parts, 1)


class Read(nn.Module):
    """What the language model computes once for a picture."""

    def __init__(self, ras: RAS) -> None:
        super().__init__()
        self.lmm, self.masks = cast(Llava, ras.lmm), cast(MaskTokenizer, ras.reader.mask_tokenizer)
        self.image_tokens = ras.image_tokens
        chat = self.lmm.chat(ras.image_tokens)
        self.begin, self.after = (torch.tensor(ids, dtype=torch.int64) for ids in (chat.begin, chat.after))
        mean, std = (torch.tensor(triple, dtype=torch.float32)[:, None, None] for triple in (CLIP_MEAN, CLIP_STD))
        self.mean, self.std = mean, std

    def forward(self, image: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Small picture (1, 3, s, s) in [0, 1] and features (N, C).

        Returns:
            Keys and values of the prefix (layers, heads, K, D / heads), and mask tokens (N, D).
        """
        candidates = self.masks(features)
        parts = [self.lmm.embed(self.begin)]
        if self.image_tokens:
            tower: Any = self.lmm.vision_tower
            states = tower(pixel_values=(image - self.mean) / self.std, output_hidden_states=True).hidden_states
            parts.append(self.lmm.project_image(states[self.lmm.model.config.vision_feature_layer][:, 1:])[0])
        pre = self.masks.pool_pre
        pairs = candidates if pre is None else torch.stack([pre.expand_as(candidates), candidates], 1).flatten(0, 1)
        rows = torch.cat([*parts, pairs, self.lmm.embed(self.after)])[None]
        cache, order = KeyValueCache(), torch.arange(rows.shape[1], dtype=torch.int64)
        causal = (order[None] <= order[:, None])[None, None]
        self.lmm.hidden(rows, causal, order[None], cache)
        keys, values = (torch.cat([getattr(layer, name) for layer in cache.layers]) for name in ("keys", "values"))
        return keys, values, candidates


class Answer(nn.Module):
    """The scores of all candidates for one prompt.

    Attributes:
        pre_id: the id of the pre-token of a reference; the r-th reference has the id pre_id + 1 + r.
    """

    def __init__(self, ras: RAS) -> None:
        super().__init__()
        self.lmm, self.masks = cast(Llava, ras.lmm), cast(MaskTokenizer, ras.reader.mask_tokenizer)
        self.scorer = cast(ParallelScorer, ras.scorer)
        self.pre_id = int(self.lmm.model.get_input_embeddings().num_embeddings)

    def forward(self, keys: Tensor, values: Tensor, candidates: Tensor, references: Tensor, ids: Tensor) -> Tensor:
        """The output of `Read`, features of the references (R, C) and token ids (L,): scores (N,) in [0, 1]."""
        words = self.lmm.model.get_input_embeddings().weight
        pre = words[:1] * 0 if self.masks.ref_pre is None else self.masks.ref_pre[None]
        table = torch.cat([words, pre, self.masks(references)])
        rows = torch.cat([table[ids], candidates])[None]
        before, length, count = keys.shape[2], ids.shape[0], candidates.shape[0]
        order = torch.arange(length + count, dtype=torch.int64)
        positions = before + order.clamp(max=length)  # all candidates at one position
        answers = order >= length
        within = (order[None] <= order[:, None]) | (answers[:, None] & answers[None])
        visible = torch.cat([torch.ones(length + count, before, dtype=torch.bool), within], 1)[None, None]
        cache = KeyValueCache()
        cache.layers = [CachedLayer(k[None], v[None]) for k, v in zip(keys.unbind(0), values.unbind(0), strict=True)]
        hidden = self.lmm.hidden(rows, visible, positions[None], cache)
        return torch.sigmoid(self.scorer.head(hidden[0, length:]))


class SamEncoder(nn.Module):
    """SAM's image encoder with its normalisation."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> Tensor:
        """Picture (1, 3, S, S) from 0 to 255 to the image embedding (1, channels, h, w)."""
        return cast(Tensor, self.sam.image_encoder((image - self.sam.pixel_mean) / self.sam.pixel_std))


class SamDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder. Labels are those of SAM's own export."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts on one picture.

        Args:
            embedding: (1, channels, h, w).
            points: (P, T, 2), x and y in pixels of the square.
            labels: (P, T) float: 1 foreground, 0 background, 2 and 3 the corners of a box, -1 padding. Prompts without
                a box need one point of padding at the end.

        Returns:
            Low-res logits (P, 4, 4 h, 4 w) and predicted IoU (P, 4); the first of four is the single mask.
        """
        encoder = self.sam.prompt_encoder
        tokens = encoder.points(points, labels, end=False)
        for kind in (2, 3):
            corner = cast(Tensor, encoder.point_embeddings[kind].weight)
            tokens = torch.where(labels[..., None] == kind, tokens + corner, tokens)
        logits, iou = decode_prompts(self.sam, embedding, tokens[None])
        return logits[0], iou[0]


def _geometry(masks: Tensor) -> Tensor:
    """`encoders.ensemble.mask_geometry` in operations that ONNX has."""
    side = masks.shape[-1]
    inside = masks.float()
    last = torch.arange(1, side + 1, dtype=torch.float32)
    columns, rows = inside.amax(1), inside.amax(2)
    empty = 1 - columns.amax(1)
    ends = [(line * last).amax(1) for line in (columns, rows)]
    starts = [side - (line * last.flip(0)).amax(1) - side * empty for line in (columns, rows)]
    share = inside.flatten(1).mean(1).sqrt()
    return torch.stack([share, *(edge / side for edge in (*starts, *ends))], 1)


def _compact_ras(system: object) -> RAS:
    """Raise ValueError for a system that is not exported."""
    name = getattr(system, "name", type(system).__name__)
    if not isinstance(system, RAS) or not isinstance(cast(Llava, system.lmm).model, CompactLlava):
        raise ValueError(f"model {name} cannot be exported to ONNX; expected a compact RAS, such as ras")
    scorer, lmm = system.scorer, cast(Llava, system.lmm)
    if not isinstance(scorer, ParallelScorer) or scorer.second_pass != "mutual" or lmm.tower or lmm.square:
        raise ValueError(
            f"model {name} has another scorer, second pass or vision tower; expected the scorer parallel, the second "
            "pass mutual, and the tower of the compact LLaVA"
        )
    return system


def _sam_of(ras: RAS) -> Sam | None:
    proposer: Any = ras.proposer
    while proposer is not None:
        if isinstance(getattr(proposer, "sam", None), Sam):
            return cast(Sam, proposer.sam)
        proposer = getattr(proposer, "proposer", None)
    return None


def _side(ras: RAS) -> int:
    return max(info.input_size for info in ras.encoders.info)


def _small_side(ras: RAS) -> int:
    return int(cast(Llava, ras.lmm).model.config.vision_config.image_size)


def _facts(ras: RAS, sam: Sam | None, threshold: float) -> dict[str, Any]:
    """What a program needs beside the networks."""
    lmm = cast(Llava, ras.lmm)
    return {
        "threshold": threshold,
        "duplicates_iou": ras.duplicates_iou,
        "image_side": _side(ras),
        "small_image_side": _small_side(ras),
        "sam_side": None if sam is None else int(sam.image_encoder.img_size),
        "reference_pre_id": int(lmm.model.get_input_embeddings().num_embeddings),
        "has_reference_pre": cast(MaskTokenizer, ras.reader.mask_tokenizer).ref_pre is not None,
        "closing_ids": lmm.chat(False).closing,
        "most_positions": lmm.max_positions,
    }


@torch.no_grad()
def _write(graph: Graph, path: Path) -> None:
    """Export one network."""
    free = tuple({axis: torch.export.Dim.DYNAMIC for axis in graph.free.get(name, ())} for name in graph.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        torch.onnx.export(
            graph.network.eval(),
            tuple(graph.inputs.values()),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=free,
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
