"""InstructSeg's release: every tensor by its true name arrives where it belongs, and its Mipha works from files."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from maskselect.decoders.mask2former import MaskDecoder, PixelDecoder
from maskselect.encoders.swin import SwinEncoder
from maskselect.importers.hub_folder import Renamed
from maskselect.importers.instructseg import Release, read_release, write_language_model
from maskselect.importers.instructseg_names import INSTRUCTSEG, LMM
from maskselect.lmm.mipha import Mipha
from maskselect.lmm.mipha_network import MiphaNetwork
from maskselect.tokens.text_fusion import TextFusion
from maskselect.tokens.video_perceiver import VideoPerceiver
from tests.importers import published_instructseg as published
from tests.importers.published_instructseg import Sizes
from tests.importers.tiny_instructseg_release import KNOWN, SIZES, arguments, weights, write
from tests.lmm.published_mipha import SPARE, WIDTH, Original


class Parts(nn.Module):
    """The parts of the system beside the language model, by their names there."""

    def __init__(self) -> None:
        super().__init__()
        sizes = arguments()
        self.encoder, self.perceiver = SwinEncoder(**sizes["encoder"]), VideoPerceiver(**sizes["perceiver"])
        self.pixel_decoder = PixelDecoder(**sizes["pixel_decoder"])
        self.mask_decoder = MaskDecoder(**sizes["mask_decoder"])
        self.fusion = TextFusion(**sizes["fusion"])
        self.mask_queries = nn.Parameter(torch.zeros(SIZES.queries, SIZES.width))
        self.query_projector = nn.Linear(SIZES.width, SIZES.dim)


@pytest.fixture(scope="module")
def original() -> Original:
    return Original(KNOWN)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, original: Original) -> Release:
    return read_release(write(tmp_path_factory.mktemp("release"), weights(original), original))


def all_shapes(release: Release) -> dict[str, torch.Size]:
    with torch.device("meta"):
        network = MiphaNetwork(release.config)
    own = {LMM + name: tensor.shape for name, tensor in network.state_dict().items()}
    return own | {name: tensor.shape for name, tensor in Parts().state_dict().items()}


def test_every_tensor_is_accounted_for(release: Release) -> None:
    names, report = release.account(all_shapes(release))
    assert len(report.matched) + len(report.dropped) == len(published.release(SIZES))
    assert set(report.dropped) == set(published.ignored(SIZES))
    assert set(report.reasons()) == {
        "unused by InstructSeg",
        "SigLIP's pooling head, which nothing uses",
        "a computed table",
    }
    assert names["mask_queries"] == "seg_query" and names["perceiver.queries"] == "temporal_query"
    assert names["fusion.output.weight"] == "SEG_token_projector.weight"
    assert names["mask_decoder.query_projection.layers.0.bias"] == "predictor.SEG_proj.layers.0.bias"
    for own, foreign in names.items():
        assert INSTRUCTSEG.foreign(own) == foreign


def test_parts_load_strictly_and_hold_the_releases_values(release: Release) -> None:
    names, _ = release.account(all_shapes(release))
    parts = Parts()
    tensors = Renamed(release.weights, names)
    parts.load_state_dict({name: tensors[name] for name in parts.state_dict()})
    foreign = release.weights
    torch.testing.assert_close(parts.mask_queries.data, foreign["seg_query"])
    attention = parts.perceiver.resampler.layers[1][0]  # type: ignore[index]
    torch.testing.assert_close(attention.to_kv.weight.data, foreign["ovp_layers.layers.1.0.to_kv.weight"])
    torch.testing.assert_close(parts.fusion.pooled_projector.bias.data, foreign["origin_SEG_token_projector.bias"])
    assert parts.fusion(torch.randn(1, 4, WIDTH), None, torch.randn(1, 32, 2, 2)).shape == (1, 16)


@torch.no_grad()
def test_its_mipha_works_from_the_new_folder(release: Release, original: Original, tmp_path: Path) -> None:
    names, _ = release.account(all_shapes(release))
    write_language_model(tmp_path, release, names, shard="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    lmm = Mipha(model=str(tmp_path)).eval()
    ids = torch.tensor([[1, 7, 300 % KNOWN, lmm.add_token("[SEG]")]])
    assert len(lmm.model.lm_head.weight) == KNOWN + SPARE and len(lmm.embed(ids)[0]) == 4
    want = original.phi(input_ids=ids)
    torch.testing.assert_close(lmm.token_logits(lmm.hidden(lmm.embed(ids))), want.logits, atol=1e-4, rtol=1e-4)
    pixels = torch.rand(1, 3, 28, 28)
    seen = original.tower(pixel_values=lmm.square(pixels) * 2 - 1, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(lmm.project_image(lmm.vision_features(pixels)), original.projector(seen))


def test_a_tokenizer_without_seg_gets_it_as_the_last_row(release: Release, original: Original, tmp_path: Path) -> None:
    names, _ = release.account(all_shapes(release))
    write(tmp_path / "bare", {"x": torch.zeros(1)}, original, added=())
    (tmp_path / "new").mkdir()
    write_language_model(tmp_path / "new", release, names, tokenizer=tmp_path / "bare")
    assert Mipha(model=str(tmp_path / "new")).token_ids("[SEG]") == [KNOWN - 1]
    write(tmp_path / "other", {"x": torch.zeros(1)}, original, added=("a1", "b2", "[SEG]"))
    with pytest.raises(ValueError, match=rf"has {KNOWN + 2} tokens, but .* has embeddings of {KNOWN}"):
        write_language_model(tmp_path / "new", release, names, tokenizer=tmp_path / "other")


def test_wrong_releases_are_refused(release: Release, original: Original, tmp_path: Path) -> None:
    shapes = all_shapes(release)
    good = weights(original)
    for change, message in (
        ({"strange.weight": torch.zeros(2)}, "1 unknown"),
        ({"seg_query": torch.zeros(4, WIDTH)}, "1 reshaped; reshaped: seg_query is 4 x 40, expected 5 x 40"),
        ({"temporal_query": None}, "1 missing, 0 reshaped; missing: temporal_query"),
    ):
        tensors = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        broken = read_release(write(tmp_path / message[:3], tensors, original))
        with pytest.raises(ValueError, match=f"is not an InstructSeg as configured: .*{message}"):
            broken.account(shapes)
    headless = {name: tensor for name, tensor in good.items() if name != "lm_head.weight"}
    with pytest.raises(ValueError, match=r"is not an InstructSeg: lm_head\.weight is missing"):
        read_release(write(tmp_path / "headless", headless, original))
    other = write(tmp_path / "other", good, original)
    (other / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match=r"config\.json has model_type 'llava'; expected 'mipha_phi'"):
        read_release(other)


def test_a_head_of_as_many_rows_as_the_embeddings_is_read(original: Original, tmp_path: Path) -> None:
    tensors = weights(original)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:KNOWN].clone()
    assert read_release(write(tmp_path, tensors, original)).config.output_rows == KNOWN


def test_published_sizes_of_the_resamplers() -> None:
    """Section 1.4 and 1.6 of the specification: 110.15 and 25.19 million parameters."""
    with torch.device("meta"):
        perceiver, fusion = VideoPerceiver(2560), TextFusion(2560)
    counts = [sum(p.numel() for p in one.resampler.parameters()) for one in (perceiver, fusion)]
    assert counts == [110_151_680, 25_186_304]
    held = published.release(Sizes())
    assert counts == [
        sum(math.prod(shape) for name, shape in held.items() if name.startswith(start))
        for start in ("ovp_layers.", "vmtf_layers.")
    ]
