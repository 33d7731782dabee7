"""InstructSeg's release becomes a model: every value arrives, it answers, and wrong releases leave nothing behind.

References are the parts with the release's tensors, renamed here by hand (specification, section 1.13).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import maskselect
from maskselect import cli
from maskselect.backends.building import build
from maskselect.backends.config_tree import Node
from maskselect.backends.configs import read_configs
from maskselect.backends.weightless import weightless
from maskselect.decoders.mask2former import MaskDecoder, PixelDecoder
from maskselect.encoders.swin import SwinEncoder
from maskselect.importers.instructseg import expected_shapes, import_instructseg
from maskselect.importers.instructseg_names import INSTRUCTSEG
from maskselect.lmm.mipha_network import MiphaSizes
from maskselect.systems.instructseg import InstructReading, InstructSeg
from maskselect.systems.loading import load_system
from maskselect.tokens.text_fusion import TextFusion
from maskselect.tokens.video_perceiver import VideoPerceiver
from tests.importers import published_instructseg as published
from tests.importers.published_instructseg import Sizes
from tests.importers.tiny_instructseg_release import KNOWN, PICTURE, SIZES, arguments, config, weights, write
from tests.lmm.published_mipha import SIDE, Original, words

FILES = {"mipha", "swin", "instructseg.safetensors", "instructseg.json"}


class Made:
    """A release, and what its import wrote."""

    def __init__(self, folder: Path) -> None:
        self.original = Original(KNOWN)
        self.tensors = weights(self.original)
        self.config = config(folder)
        self.source, self.out = write(folder / "release", self.tensors, self.original), folder / "out"
        self.report, self.told = import_instructseg(self.source, self.out, [self.config], shard="20KB")
        system, self.card = load_system(self.out)
        assert isinstance(system, InstructSeg)
        self.system: Any = system.eval()

    def part(self, module: nn.Module, **renames: str) -> Any:
        """The module with tensors whose names begin with the keys, `__` for a dot, renamed to begin with the values."""
        held: dict[str, Tensor] = {}
        for foreign, own in ((f.replace("__", "."), o) for f, o in renames.items()):
            for name, tensor in self.tensors.items():
                if name.startswith(foreign) and name not in published.ignored(SIZES):
                    held[own + name.removeprefix(foreign)] = tensor
        module.load_state_dict(held)
        return module.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("instructseg"))


def test_every_tensor_is_taken_or_left_with_a_reason(made: Made) -> None:
    assert len(made.report.matched) + len(made.report.dropped) == len(made.tensors)
    assert set(made.report.dropped) == set(published.ignored(SIZES))
    assert made.told[0] == "references are untrained"
    assert {path.name for path in made.out.iterdir()} == FILES
    assert made.card["imported"]["matched"] == len(made.report.matched)
    settings = made.card["config"]["init_args"]
    assert settings["selection"] == "best" and "lora" not in settings["lmm"]["init_args"]
    assert settings["encoder"]["init_args"]["checkpoint"] == "{beside}/swin/swin.safetensors"
    assert json.loads((made.out / "swin" / "swin.json").read_text())["system"] == "encoder"


def test_every_value_arrives(made: Made) -> None:
    """The state of the loaded system is the release, but for the mask tokenizer."""
    state = made.system.state_dict()
    ours = {name for name in state if name.startswith("reader.mask_tokenizer.")}
    taken = {name: foreign for foreign, names in made.report.matched.items() for name in names}
    assert state.keys() == taken.keys() | ours
    for name, foreign in taken.items():
        torch.testing.assert_close(state[name], made.tensors[foreign], msg=name)
    trained = load_file(made.out / "instructseg.safetensors")
    assert trained.keys() == {name for name in made.system.learned_state() if not name.startswith("reader.lmm.")}


@torch.no_grad()
def test_every_part_computes_as_the_part_alone(made: Made) -> None:
    system, sizes = made.system, arguments()
    pictures = torch.rand(2, 3, PICTURE, PICTURE)
    swin = made.part(SwinEncoder(**sizes["encoder"]), model__vision_tower_mask__="trunk.")
    maps = [m.features for m in swin.encode(pictures)]
    for found, wanted in zip(system.encoder.encode(pictures), maps, strict=True):
        torch.testing.assert_close(found.features, wanted)
    pixels = made.part(PixelDecoder(**sizes["pixel_decoder"]), pixel_decoder__="")(maps)
    torch.testing.assert_close(system.pixel_decoder(maps).mask_features, pixels.mask_features)
    decoder = made.part(
        MaskDecoder(**sizes["mask_decoder"]),
        predictor__SEG_proj__="query_projection.",
        **{f"predictor__{name}": name for name in ("transformer", "decoder", "query_embed", "level", "mask")},
    )
    queries, text = torch.randn(2, SIZES.queries, SIZES.dim), torch.randn(2, 1, SIZES.dim)
    found, wanted = system.mask_decoder(pixels, queries, text), decoder(pixels, queries, text)
    torch.testing.assert_close(found.masks, wanted.masks)
    torch.testing.assert_close(found.scores, wanted.scores)
    perceiver = made.part(VideoPerceiver(**sizes["perceiver"]), temporal_query="queries", ovp_layers__="resampler.")
    frames, words_read = torch.randn(1, 2, 16, SIZES.width), torch.randn(1, 4, SIZES.width)
    torch.testing.assert_close(system.perceiver(frames, words_read), perceiver(frames, words_read))
    fusion = made.part(
        TextFusion(**sizes["fusion"]),
        vmtf_layers__="resampler.",
        origin_SEG_token_projector__="pooled_projector.",
        text_vmtf_projector__="text_projector.",
        local_project__="vision_projector.",
        SEG_token_projector__="output.",
    )
    states = torch.randn(2, 4, SIZES.width)
    torch.testing.assert_close(system.fusion(states, None, maps[-1]), fusion(states, None, maps[-1]))
    ids = torch.tensor([[1, 7, 30, KNOWN - 1]])
    logits = system.lmm.token_logits(system.lmm.hidden(system.lmm.embed(ids)))
    torch.testing.assert_close(logits, made.original.phi(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_it_answers_with_its_best_mask_and_reads_references(made: Made) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)
    model = maskselect.load(made.out)
    first = model.select(image, "the red thing")
    assert first.masks.shape == (1, 48, 40) and first.masks.any() and first.candidates == SIZES.queries
    second = model.select(image, "the thing on the left")
    assert first.scores[0] != second.scores[0]
    square = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    reading = made.system.read(square)
    assert isinstance(reading, InstructReading)
    # An untrained reference over the whole of one image token is that token.
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0, 1] = True
    token = made.system.reader.mask_tokenizer(made.system.pooled(reading.features[0], masks))
    torch.testing.assert_close(token, made.system.lmm.project_image(reading.features)[0, 1:2], atol=1e-4, rtol=1e-4)


def test_published_sizes_fit_to_the_last_tensor() -> None:
    """All tensors of section 1.13, and all that configs/paper/instructseg.yaml trains, on the meta device."""
    sizes = Sizes()
    headers = {name: torch.empty(shape, device="meta") for name, shape in published.release(sizes).items()}
    task = read_configs(["paper/instructseg.yaml"])["model"]["task"]
    shapes = expected_shapes(MiphaSizes().config(sizes.vocabulary, output_rows=sizes.outputs), task)
    names, report = INSTRUCTSEG.account(headers, shapes)
    report.check("meta", "an InstructSeg")
    assert set(names) == set(shapes)
    assert set(report.dropped) == set(published.ignored(sizes))
    with weightless():
        system = build(task)
    trained = {name.replace(".base_layer.", ".") for name in system.learned_state() if ".lora_" not in name}
    ours = {f"reader.mask_tokenizer.{name}" for name in system.reader.mask_tokenizer.state_dict()}
    assert trained - names.keys() == ours
    assert {"mask_queries", "perceiver.queries", "reader.lmm.model.lm_head.weight"} <= trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strange.weight": torch.zeros(2)}, r"is not an InstructSeg as configured: .*1 unknown.*strange\.weight"),
        ({"pixel_decoder.layer_1.0.bias": None}, r"1 missing.*pixel_decoder\.layer_1\.0\.bias"),
        ({"model.vision_tower_mask.norm3.weight": torch.zeros(9)}, r"norm3\.weight is 9, expected 32"),
        (
            {"predictor.decoder_norm.bias": torch.full((16,), torch.nan)},
            r"mask_decoder\.decoder_norm\.bias holds values",
        ),
        ({"model.vision_tower_mask.norm0.bias": torch.full((4,), torch.inf)}, r"trunk\.norm0\.bias holds values"),
        ({"model.layers.1.mlp.fc1.bias": torch.full((48,), torch.nan)}, r"layers\.1\.mlp\.fc1\.bias holds values"),
        ({"temporal_query": torch.zeros(3, 40, dtype=torch.int64)}, r"perceiver\.queries is int64; expected a dense"),
    ],
)
def test_wrong_tensors_are_refused_and_leave_nothing(
    made: Made, change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    tensors = {name: tensor for name, tensor in (made.tensors | change).items() if tensor is not None}
    source = write(tmp_path / "release", tensors, made.original)
    with pytest.raises(ValueError, match=message):
        import_instructseg(source, tmp_path / "out", [made.config])
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_wrong_configs_tokenizers_and_folders_are_refused(made: Made, tmp_path: Path) -> None:
    def refused(expected: str, settings: Path = made.config, **options: Any) -> None:
        with pytest.raises(ValueError, match=expected):
            import_instructseg(made.source, tmp_path / "out", [settings], **options)
        assert not (tmp_path / "out").exists()

    refused("InstructSeg has query_feat, which the release does not have", config(tmp_path, learned_queries=True))
    refused(r"as configured: .*25 unknown, .*unknown: ovp_layers", config(tmp_path, perceiver=None))
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"model": {"task": {"class_path": "a.B", "init_args": {"lmm": 1, "encoder": 2}}}}))
    refused(r"task is 'a\.B'; expected maskselect\.systems\.instructseg\.InstructSeg", other)
    words("a1", "b2", "[SEG]").save_pretrained(tmp_path / "tokenizer")
    refused(rf"embeddings of {KNOWN}", tokenizer=tmp_path / "tokenizer")
    before = sorted(path.name for path in made.out.iterdir())
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        import_instructseg(made.source, made.out, [made.config])
    assert sorted(path.name for path in made.out.iterdir()) == before


def test_the_command(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "instructseg", str(made.source), str(tmp_path / "out"), "-c", str(made.config)]) == 0
    told = capsys.readouterr().out
    assert f"{len(made.report.matched)} tensors taken, {len(made.report.dropped)} left behind:" in told
    assert "Note: references are untrained." in told
    card = json.loads((tmp_path / "out" / "instructseg.json").read_text())
    node = Node.of(card["config"])
    assert node is not None and node.arguments["lmm"]["init_args"]["model"] == "{beside}/mipha"
