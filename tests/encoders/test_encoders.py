"""One contract, run over every encoder class: declared is what a real forward gives, and nothing is trainable."""

import inspect

import pytest
import torch
from torch import nn

from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.sam import load_sam
from maskselect.encoders.compact import ConvEncoder, VitEncoder
from maskselect.encoders.frozen import declare_levels, merged
from maskselect.encoders.open_clip import OpenClipEncoder, create_tower
from maskselect.encoders.position import SinusoidEncoder
from maskselect.encoders.sam import SamEncoder
from maskselect.encoders.swin import SwinEncoder
from maskselect.encoders.timm import TimmEncoder
from maskselect.structures.features import FeatureLevel
from maskselect.structures.protocols import Encoder

TINY_CLIP = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
VIT_ARGS = {"embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": ""}
RESNET_ARGS = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_width": 4, "stem_type": "deep"}

CASES = {
    "vit": lambda: TimmEncoder("e", "vit_tiny_patch16_224", 64, final_norm=True, model_args=VIT_ARGS),
    "vit with conv stem": lambda: TimmEncoder("e", "vit_tiny_patch16_224", 64, stem="conv", model_args=VIT_ARGS),
    "vit with prefix tokens": lambda: TimmEncoder("e", "test_vit", 64, layers=[-2]),
    "vit patch 14, unused border": lambda: TimmEncoder(
        "e", "vit_tiny_patch16_224", 64, model_args={"patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2}
    ),
    "resnet two levels": lambda: TimmEncoder("e", "resnet18", 64, layers=[2, 3], model_args=RESNET_ARGS),
    "resnet last": lambda: TimmEncoder("e", "resnet18", 64, model_args=RESNET_ARGS),
    "convnext": lambda: TimmEncoder("e", "test_convnext", 64, layers=[0, 1, 2, 3]),
    "swin": lambda: TimmEncoder(
        "e", "swin_tiny_patch4_window7_224", 64, layers=[0, 1, 2, 3],
        model_args={"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 2},
    ),
    "swin with a norm for each level": lambda: SwinEncoder("e", 64, 8, [1, 2, 1, 1], [1, 2, 4, 8], 3),
    "open_clip vit": lambda: OpenClipEncoder("e", "ViT-B-32", 64, model_args=TINY_CLIP),
    "open_clip convnext": lambda: OpenClipEncoder(
        "e", "convnext_base", 64, layers=[-1], model_args={"timm_model_name": "test_convnext"}
    ),
    "open_clip siglip": lambda: OpenClipEncoder(
        "e", "ViT-B-16-SigLIP", 64, layers=[-1], final_norm=True, mean=[0.5] * 3, std=[0.5] * 3,
        model_args={"timm_model_name": "test_vit"},
    ),
    "compact conv": lambda: ConvEncoder("e", 64, [1, 1], [8, 16], [1, 2], 4),
    "compact vit": lambda: VitEncoder("e", 64, 16, 32, 2, 2),
    "position": lambda: SinusoidEncoder("e", grid=8, frequencies=3),
    "sam": lambda: SamEncoder("e"),
}  # fmt: skip


@pytest.fixture(params=CASES, scope="module")
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return CASES[request.param]()


@pytest.mark.parametrize("side", [64, 90])
def test_declared_is_real(encoder: Encoder, side: int) -> None:
    maps = encoder.encode(torch.rand(2, 3, side, side))
    assert [(m.features.shape[1], m.stride) for m in maps] == [(x.channels, x.stride) for x in encoder.info.levels]
    for found in maps:
        assert found.info is encoder.info and len(found.features) == 2
        assert found.features.dtype == torch.float32 and torch.isfinite(found.features).all()
        rows, columns = found.features.shape[-2:]
        covered = encoder.info.covered * encoder.info.input_size
        assert rows == columns and covered <= rows * found.stride < covered + found.stride
    whole = merged(maps)
    assert whole.features.shape == (2, encoder.info.channels, *encoder.info.grid)
    assert whole.stride == min(m.stride for m in maps)


@pytest.mark.parametrize(("height", "width"), [(64, 32), (45, 90), (20, 64), (7, 100)])
def test_images_that_are_not_square(encoder: Encoder, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    if not encoder.info.any_shape:
        with pytest.raises(ValueError, match=f"reads square images, got {height} x {width}"):
            encoder.encode(images)
        return
    scale, coarsest = encoder.info.input_size / max(height, width), max(x.stride for x in encoder.info.levels)
    padded = [max(1, round(side * scale)) for side in (height, width)]
    padded = [-(-side // coarsest) * coarsest for side in padded]
    for found, level in zip(encoder.encode(images), encoder.info.levels, strict=True):
        assert found.features.shape == (2, level.channels, *(side // level.stride for side in padded))
        assert torch.isfinite(found.features).all()


def test_which_networks_read_any_shape() -> None:
    square = {"open_clip vit", "position", "sam"}
    assert {name for name, make in CASES.items() if not make().info.any_shape} == square


def test_a_wide_image_is_read_as_the_network_reads_it() -> None:
    """A ConvNet has no positions: far from the lower border it is the upper half of a square."""
    torch.manual_seed(0)
    encoder = ConvEncoder("e", 256, [1, 1], [8, 16], [1, 2], 4)
    square = torch.rand(1, 3, 256, 256)
    for wide, whole in zip(encoder.encode(square[:, :, :128]), encoder.encode(square), strict=True):
        rows = (128 - 48) // wide.stride
        assert wide.features.shape[-2:] == (128 // wide.stride, 256 // wide.stride)
        torch.testing.assert_close(wide.features[:, :, :rows], whole.features[:, :, :rows], atol=1e-5, rtol=1e-5)


def test_protocol(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)


def test_frozen(encoder: Encoder) -> None:
    assert isinstance(encoder, nn.Module)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    before = merged(encoder.encode(images)).features
    encoder.train()
    assert not any(p.requires_grad for p in encoder.parameters())
    after = merged(encoder.encode(images)).features
    assert not after.requires_grad
    assert torch.equal(before, after)


def test_one_image_does_not_change_another(encoder: Encoder) -> None:
    images = torch.rand(2, 3, 64, 64)
    together, alone = merged(encoder.encode(images)).features, merged(encoder.encode(images[:1])).features
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_penultimate_block_is_what_timm_gives() -> None:
    encoder = TimmEncoder("e", "test_vit", 64, layers=[-2])
    whole = TimmEncoder("e", "test_vit", 64, layers=[-2, -1])
    encoder.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    channels = encoder.info.channels
    assert torch.allclose(
        merged(encoder.encode(images)).features, merged(whole.encode(images)).features[:, :channels], atol=1e-6
    )


def test_normalisation_is_the_declared_one() -> None:
    encoder = TimmEncoder("e", "test_vit", 64, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 0.2])
    flat = torch.tensor([0.6, 0.45, 0.5])[None, :, None, None].expand(1, 3, 64, 64)
    assert torch.allclose(encoder.prepare(flat), torch.ones(1, 3, 64, 64), atol=1e-6)


def test_sams_features_are_its_own_embedding() -> None:
    encoder, sam = SamEncoder("e"), load_sam()
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        expected = sam.image_encoder(sam.preprocess(image * 255))
    torch.testing.assert_close(merged(encoder.encode(image)).features, expected, atol=1e-4, rtol=1e-4)


def test_checkpoint_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    first = CASES["resnet two levels"]()
    assert isinstance(first, TimmEncoder)
    path = tmp_path / "e.safetensors"
    write_checkpoint(path, first.state_dict(), {"system": "encoder"})
    again = TimmEncoder("e", "resnet18", 64, layers=[2, 3], model_args=RESNET_ARGS, checkpoint=str(path))
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(merged(first.encode(images)).features, merged(again.encode(images)).features, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TimmEncoder("e", "vit_tinny", 64), "no model 'vit_tinny'"),
        (lambda: TimmEncoder("e", "resnet18", 64, model_args={"colour": "red"}), "does not take these arguments"),
        (lambda: TimmEncoder("e", "test_vit", 64, layers=[99]), "layer 99 does not exist"),
        (lambda: TimmEncoder("e", "test_vit", 64, mean=[0.5]), "three values"),
        (lambda: TimmEncoder("e", "test_vit", 64, interpolation="cubic"), "'cubic' is unknown"),
        (lambda: TimmEncoder("e", "test_vit", 64, pretrained=True, checkpoint="x"), "not both"),
        (lambda: OpenClipEncoder("e", "ViT-Q-99", 64), "no model 'ViT-Q-99'"),
        (lambda: OpenClipEncoder("e", "ViT-B-32", 64, pretrained="me", model_args=TINY_CLIP), "no weights 'me'"),
        (lambda: TimmEncoder("e", "vit_tiny_patch16_224", 60, stem="conv", model_args=VIT_ARGS), "divide 60 x 60"),
        (lambda: SinusoidEncoder(frequencies=0), "at least 1"),
    ],
)
def test_errors_are_one_clear_sentence(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("maskselect.encoders.timm.timm.create_model", refuse)
    with pytest.raises(FileNotFoundError, match="run once with network"):
        TimmEncoder("e", "vit_tiny_patch16_224", 64, pretrained=True)


def test_open_clip_normalisation_is_never_asked_of_the_package() -> None:
    assert "create_model_and_transforms" not in inspect.getsource(create_tower)


def test_levels_round_up_as_padded_strides_do() -> None:
    levels = [{"num_chs": 4, "reduction": 2}, {"num_chs": 8, "reduction": 4}]
    assert declare_levels(levels, [0, -1], 33, None) == ((FeatureLevel(4, 2), FeatureLevel(8, 4)), (17, 17))
    assert declare_levels(levels, [1], 33, (16, 16))[1] == (9, 9)  # the patch grid is that of another level
    assert declare_levels(levels, [0], 33, (16, 16))[1] == (16, 16)


def test_position_tells_centroid_and_extent() -> None:
    table = SinusoidEncoder(grid=32, frequencies=12).encode(torch.zeros(1, 3, 1, 1))[0].features[0]
    means, truth = [], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        x0, y0 = torch.randint(0, 24, (2,), generator=generator).tolist()
        w, h = torch.randint(2, 9, (2,), generator=generator).tolist()
        means.append(table[:, y0 : y0 + h, x0 : x0 + w].mean((1, 2)))
        truth.append(torch.tensor([x0 + w / 2, y0 + h / 2, w, h]) / 32)
    features = torch.cat([torch.stack(means), torch.ones(400, 1)], 1).double()
    target = torch.stack(truth).double()
    weights = torch.linalg.lstsq(features[:300], target[:300]).solution
    error = (features[300:] @ weights - target[300:]).abs().mean(0)
    assert error[:2].max() < 0.005, error  # a sixth of a cell
    assert error[2:].max() < 0.07, error  # linearly, extent is only dimly there; see EncoderEnsemble's geometry
