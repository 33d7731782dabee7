"""Text4Seg's releases: a whole LLaVA, and adapters of both training stacks on a base of either naming.

The reference is peft on transformers' own LLaVA, which also writes the files of ms-swift.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

import maskselect
from maskselect import cli
from maskselect.importers.adapters import TRANSFORMERS, own_name
from maskselect.importers.hub_folder import HubWeights
from maskselect.importers.llava import import_llava
from maskselect.importers.llava_names import ORIGINAL
from maskselect.importers.text4seg import import_text4seg
from maskselect.systems.loading import load_system
from maskselect.systems.text4seg import PictureReading, Text4Seg
from tests.importers import original_llava
from tests.importers.release import Sizes
from tests.lmm.twin import VICUNA_SYSTEM

SIDE = Sizes.grid * Sizes.patch
RANK, ALPHA = 2, 6
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def config(folder: Path) -> Path:
    """As configs/paper/text4seg_llava_7b.yaml, tiny."""
    arguments = {
        "variant": "text4seg",
        "side": SIDE,
        "label": "prompt",
        "phrasing": "sentences",
        "longest": 8,
        "codec": {"class_path": "maskselect.codecs.descriptors.DescriptorCodec", "init_args": {"grid": 16}},
        "lmm": {
            "class_path": "maskselect.lmm.llava.Llava",
            "init_args": {"model": "x/y", "lora": {"r": 2}, "system_prompt": VICUNA_SYSTEM, "dtype": "float32"},
        },
    }
    task = {"class_path": "maskselect.systems.text4seg.Text4Seg", "init_args": arguments}
    path = folder / "text4seg.yaml"
    path.write_text(yaml.safe_dump({"model": {"task": task}}))
    return path


class Made:
    """A base LLaVA in both namings, and adapters of both stacks with the weights that they make."""

    def __init__(self, folder: Path) -> None:
        self.config = config(folder)
        self.original, self.converted = folder / "llava-v1.5-7b", folder / "llava-1.5-7b-hf"
        self.sizes = Sizes(vocabulary=original_llava.base(self.original, Sizes()))
        self.tensors = original_llava.tensors(self.sizes, torch.float32)
        original_llava.write(self.original, self.tensors)
        import_llava(self.original, self.converted, shard="60KB")
        self.swift, self.llava = folder / "swift", folder / "text4seg-lora"
        self.by_swift = self._trained([*LAYERS, "linear_1", "linear_2"], self.swift)
        self.by_llava = self._trained([*LAYERS], self.llava)
        self._as_llavas()

    def _trained(self, layers: list[str], folder: Path) -> dict[str, Tensor]:
        """Adapters of the language model (and the projector), saved; gives the weights with their products added."""
        torch.manual_seed(len(layers))
        model = LlavaForConditionalGeneration.from_pretrained(self.converted, dtype=torch.float32)
        found = [
            name
            for name, _ in model.named_modules()
            if name.rpartition(".")[2] in layers and "vision_tower" not in name
        ]
        peft = pytest.importorskip("peft", reason="the reference implementation is a development package")
        settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=found, lora_dropout=0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's use of transformers
            adapted = peft.get_peft_model(model, settings)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(folder)
        return dict(adapted.merge_and_unload().state_dict())

    def _as_llavas(self) -> None:
        """Bring the second adapters to the files of LLaVA's code, with a projector that trained as a whole."""
        path = self.llava / "adapter_model.safetensors"
        named = {}
        for name, tensor in load_file(path).items():
            layer, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
            foreign = ORIGINAL.foreign(f"{layer}.weight").removesuffix(".weight")
            named[f"base_model.model.{foreign}.lora_{rest}"] = tensor
        path.unlink()
        torch.save(named, self.llava / "adapter_model.bin")
        whole = {}
        for number, layer in ((0, 1), (2, 2)):
            for kind in ("weight", "bias"):
                own = f"model.multi_modal_projector.linear_{layer}.{kind}"
                trained = self.by_llava[own] + 0.5
                self.by_llava[own] = whole[f"base_model.model.model.mm_projector.{number}.{kind}"] = trained
        torch.save(whole, self.llava / "non_lora_trainables.bin")
        (self.llava / "config.json").write_text((self.original / "config.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("text4seg"))


def imported(made: Made, source: Path, out: Path, **arguments: Any) -> dict[str, Tensor]:
    import_text4seg(source, out, [made.config], **arguments)
    return dict(LlavaForConditionalGeneration.from_pretrained(out / "llava", dtype=torch.float32).state_dict())


def check_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("naming", ["original", "converted"])
@pytest.mark.parametrize("stack", ["llava", "swift"])
def test_adapters_of_both_stacks_go_with_both_namings(made: Made, stack: str, naming: str, tmp_path: Path) -> None:
    found = imported(made, getattr(made, stack), tmp_path / "out", base=getattr(made, naming))
    check_equal(found, getattr(made, f"by_{stack}"))


@pytest.mark.parametrize("older", ["4.40", "4.52"])
def test_adapters_and_bases_of_earlier_transformers_are_read(made: Made, older: str, tmp_path: Path) -> None:
    renamed = {
        "4.40": {
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
            "model.vision_tower.": "vision_tower.vision_model.",
            "model.multi_modal_projector.": "multi_modal_projector.",
        },
        "4.52": {"model.vision_tower.": "model.vision_tower.vision_model."},
    }[older]

    def old(name: str) -> str:
        prefix = next((new for new in renamed if name.startswith(new)), "")
        return renamed.get(prefix, "") + name.removeprefix(prefix)

    adapters, base = tmp_path / "adapters", tmp_path / "base"
    adapters.mkdir()
    base.mkdir()
    (adapters / "adapter_config.json").write_text((made.swift / "adapter_config.json").read_text())
    held = {
        n.removeprefix("base_model.model."): t for n, t in load_file(made.swift / "adapter_model.safetensors").items()
    }
    save_file({f"base_model.model.{old(n)}": t for n, t in held.items()}, adapters / "adapter_model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (base / name).write_text((made.converted / name).read_text())
    weights = HubWeights(made.converted, "LLaVA", "x/y")
    save_file({old(own_name(n) or ""): t for n, t in weights.items()}, base / "model.safetensors")
    check_equal(imported(made, adapters, tmp_path / "out", base=base), made.by_swift)


def test_a_whole_release_answers_as_its_tensors_do(made: Made, tmp_path: Path) -> None:
    """Prompt, image and text by the loaded system, against transformers on the same weights; the card has the grid."""
    source = tmp_path / "release"
    original_llava.base(source, made.sizes, model_type="llava_llama")
    original_llava.write(source, made.tensors, "safetensors", 3)
    _, told = import_text4seg(source, tmp_path / "out", [made.config], grid=24)
    assert told == ["the grid is 24 x 24", "references are untrained"]
    system, card = load_system(tmp_path / "out")
    assert isinstance(system, Text4Seg) and card["threshold"] == 0.0 and card["imported"]["assumed"] == told
    assert system.codec.grid == 24 and system.phrasing == "sentences"  # type: ignore[attr-defined]
    assert not any(".lora_" in name for name in system.state_dict())
    check_equal({n: t for n, t in system.lmm.model.state_dict().items()}, dict(
        LlavaForConditionalGeneration.from_pretrained(made.converted, dtype=torch.float32).state_dict()
    ))  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    reading = system.eval().read(image)
    assert isinstance(reading, PictureReading)
    # An untrained reference over the whole of one image token is that token.
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0, 1] = True
    token = system.reader.mask_tokenizer(system.pooled(reading.features, masks))
    torch.testing.assert_close(token, system.lmm.project_image(reading.features[None])[0, 1:2], atol=1e-4, rtol=1e-4)
    group = maskselect.load(tmp_path / "out").select(image, "a thing")
    assert group.text is not None and group.candidates is None


def test_a_base_without_projector_is_refused_by_the_names_of_its_tensors(made: Made, tmp_path: Path) -> None:
    """The trap of the released code: with Vicuna for a base it drew a random projector and warned."""
    vicuna, adapters = tmp_path / "vicuna-7b-v1.5", tmp_path / "adapters"
    original_llava.base(vicuna, made.sizes)
    stated = {k: v for k, v in json.loads((vicuna / "config.json").read_text()).items() if not k.startswith("mm_")}
    (vicuna / "config.json").write_text(json.dumps(stated))
    rest = {name: tensor for name, tensor in made.tensors.items() if "mm_projector" not in name}
    original_llava.write(vicuna, rest)
    adapters.mkdir()
    for name in ("adapter_config.json", "adapter_model.bin", "config.json"):
        (adapters / name).write_bytes((made.llava / name).read_bytes())
    with pytest.raises(ValueError) as told:
        import_text4seg(adapters, tmp_path / "out", [made.config], base=vicuna)
    assert all(f"model.mm_projector.{n}.{kind}" in str(told.value) for n in (0, 2) for kind in ("weight", "bias"))
    assert "4 tensors are missing" in str(told.value) and "expected the LLaVA that the adapters" in str(told.value)
    assert not (tmp_path / "out").exists()
    # With the projector that LLaVA's code stores beside adapters, the same base is the right one.
    (adapters / "non_lora_trainables.bin").write_bytes((made.llava / "non_lora_trainables.bin").read_bytes())
    check_equal(imported(made, adapters, tmp_path / "out", base=vicuna), made.by_llava)


def test_a_base_of_another_size_is_refused(made: Made, tmp_path: Path) -> None:
    larger = Sizes(vocabulary=original_llava.base(tmp_path / "13b", Sizes(width=64)), width=64)
    original_llava.write(tmp_path / "13b", original_llava.tensors(larger, torch.float32))
    with pytest.raises(
        ValueError, match=r"adapter of model.language_model.layers.0.* is for a weight of 32 x 32, which "
    ):
        import_text4seg(made.swift, tmp_path / "out", [made.config], base=tmp_path / "13b")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_dora": True}, "use_dora True; only False"),
        ({"bias": "all"}, "bias 'all'; only 'none'"),
        ({"rank_pattern": {"q_proj": 4}}, "only one rank and scale"),
        ({"r": 0}, "has r 0"),
    ],
)
def test_settings_that_would_change_the_weights_are_refused(
    made: Made, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    stated = json.loads((made.swift / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated | changes))
    (tmp_path / "adapter_model.safetensors").write_bytes((made.swift / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=expected):
        import_text4seg(tmp_path, tmp_path / "out", [made.config], base=made.converted)


def test_the_square_root_of_the_rank_may_scale(made: Made, tmp_path: Path) -> None:
    stated = json.loads((made.swift / "adapter_config.json").read_text()) | {"use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated))
    (tmp_path / "adapter_model.safetensors").write_bytes((made.swift / "adapter_model.safetensors").read_bytes())
    found = imported(made, tmp_path, tmp_path / "out", base=made.converted)
    plain = LlavaForConditionalGeneration.from_pretrained(made.converted, dtype=torch.float32).state_dict()
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    wanted = (made.by_swift[name] - plain[name]) * RANK**0.5
    torch.testing.assert_close(found[name] - plain[name], wanted, atol=1e-5, rtol=1e-4)


def test_halves_and_strangers_are_refused(made: Made, tmp_path: Path) -> None:
    held = load_file(made.swift / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((made.swift / "adapter_config.json").read_text())
    first = next(name for name in held if "lora_A" in name)
    half = {name: tensor for name, tensor in held.items() if name != first}
    for tensors, expected in ((half, "lora_A of .* is missing"), (held | {"x.y": torch.ones(1)}, "unknown, x.y first")):
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=expected):
            import_text4seg(tmp_path, tmp_path / "out", [made.config], base=made.converted)


def test_adapters_need_a_base_and_whole_weights_none(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"as --base \(its config names .*llava-1.5-7b-hf"):
        import_text4seg(made.swift, tmp_path / "out", [made.config])
    with pytest.raises(ValueError, match="expected no --base for whole weights"):
        import_text4seg(made.original, tmp_path / "out", [made.config], base=made.converted)


def test_the_command(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "text4seg", str(made.swift), str(tmp_path / "out"), "--base", str(made.converted)]
    assert cli.main([*words, "-c", str(made.config), "--grid", "16"]) == 0
    told = capsys.readouterr().out
    assert "Note: 16 adapters, trained on " in told and "Note: the grid is 16 x 16." in told
    assert json.loads((tmp_path / "out" / "text4seg.json").read_text())["config"]["init_args"]["codec"][
        "init_args"
    ] == {"grid": 16}


def test_every_name_of_a_llava_is_known_in_both_namings(made: Made) -> None:
    names = set(HubWeights(made.converted, "LLaVA", "x/y"))
    assert {own_name(name) for name in made.tensors} == names
    assert all(TRANSFORMERS.own(name) == (name,) for name in names)
