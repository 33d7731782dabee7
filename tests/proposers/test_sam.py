"""`SamProposer` against the package's own generator and predictor, on tiny random weights; loading of weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from maskselect.backends import sam as backend
from maskselect.backends.checkpoints import write_checkpoint
from maskselect.backends.sam_points import PointDecoder
from maskselect.ops.overlap import pairwise_iou
from maskselect.proposers.sam import SamNetwork, SamProposer
from maskselect.recipes.compact.sam import SamTask
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.batches import MaskBatch
from maskselect.structures.groups import PrepareSettings
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer
from maskselect.systems.picture_batches import squared_image
from tests.backends.sam_package import to_package

TINY: dict[str, Any] = dict(image_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, window_size=0)
TINY |= dict(prompt_dim=16, global_attn_indexes=[0], decoder_mlp_dim=16, iou_head_hidden_dim=16)
OPEN = dict(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, points_per_side=3, points_per_batch=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = backend.build_sam(**TINY)
    path = tmp_path_factory.mktemp("sam") / "tiny.safetensors"
    write_checkpoint(path, model.state_dict(), {"system": "sam", "config": TINY})
    return path


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def proposer_of(checkpoint: Path, **changes: Any) -> SamProposer:
    settings: dict[str, Any] = {**OPEN, "mask_nms_thresh": None, "max_candidates": None, "refine": False, **changes}
    return SamProposer(checkpoint, **settings)


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (100, 70), (40, 90)])
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_everything_mode_is_the_packages(checkpoint: Path, size: tuple[int, int], crop_n_layers: int) -> None:
    image, proposer = image_of(*size), proposer_of(checkpoint, crop_n_layers=crop_n_layers, crop_nms_thresh=1.0)
    # The package keeps empty masks, and with thresholds at 0 it does not filter at all.
    generator = SamAutomaticMaskGenerator(
        to_package(proposer.sam), **{**OPEN, "pred_iou_thresh": -1e9}, crop_n_layers=crop_n_layers, crop_nms_thresh=1.0
    )
    expected = [r for r in generator.generate(image) if r["segmentation"].any()]
    found = proposer.propose(image)
    assert found.image_size == size
    assert len(found) > 0
    theirs = torch.from_numpy(np.stack([r["segmentation"] for r in expected]))
    iou = pairwise_iou(found.masks, theirs)
    assert iou.max(1).values.mean() > 0.97
    if crop_n_layers == 0:
        # Masks of a few pixels may be empty on one of the two grids.
        assert abs(len(found) - len(expected)) <= 0.1 * len(expected)
        scores = torch.tensor([r["predicted_iou"] for r in expected])
        close = iou.argmax(1)
        assert (found.scores - scores[close]).abs().median() < 1e-4
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


TRAINED = dict(points_per_side=8, pred_iou_thresh=0.5, stability_score_thresh=0.6, box_nms_thresh=0.7)
"""Thresholds at which the shipped SAM has about as many masks as a scene has things."""


def scene_of(seed: int, size: int = 256) -> np.ndarray:
    image = squared_image(SceneGroups("test", seed, 1).load(0).image, 256)[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.asarray(Image.fromarray(image).resize((size + 40, size))))


def partners(found: MaskSet, expected: list[dict[str, Any]], least_iou: float) -> tuple[float, float]:
    """Share of the package's masks that have a partner, and the largest difference of their scores."""
    theirs = torch.from_numpy(np.stack([r["segmentation"] for r in expected]))
    best, place = pairwise_iou(theirs, found.masks).max(1)
    scores = torch.tensor([r["predicted_iou"] for r in expected])
    return float((best >= least_iou).float().mean()), float((scores - found.scores[place]).abs().max())


@pytest.mark.parametrize(("seed", "crop_n_layers"), [(3, 0), (4, 0), (5, 1)])
def test_exact_mode_gives_the_packages_masks(seed: int, crop_n_layers: int) -> None:
    image = scene_of(seed)
    settings: dict[str, Any] = {**TRAINED, "crop_n_layers": crop_n_layers}
    proposer = SamProposer("sam", mode="exact", mask_nms_thresh=None, max_candidates=None, **settings)
    expected = SamAutomaticMaskGenerator(to_package(proposer.sam), **settings).generate(image)
    found = proposer.propose(image)
    assert len(found) == len(expected) >= 3
    share, difference = partners(found, expected, 0.99)
    assert share == 1 and difference < 1e-3
    stability = torch.tensor(sorted(r["stability_score"] for r in expected))
    torch.testing.assert_close(found.columns["stability_score"].sort().values, stability, atol=1e-3, rtol=0)


def test_fast_mode_gives_nearly_the_packages_masks() -> None:
    kept, total = 0.0, 0
    for seed in range(3, 9):
        image = scene_of(seed)
        settings: dict[str, Any] = {**TRAINED, "decision_side": 256}
        proposer = SamProposer("sam", mask_nms_thresh=None, max_candidates=None, **settings)
        expected = SamAutomaticMaskGenerator(to_package(backend.load_sam()), **TRAINED).generate(image)
        share, _ = partners(proposer.propose(image), expected, 0.9)
        kept, total = kept + share * len(expected), total + len(expected)
    assert kept / total >= 0.97


def answers(proposer: SamProposer, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder gives for a grid of points before any filter: masks (P * 3, l, l) bool, predicted IoU."""
    network = SamNetwork(proposer.sam, proposer.decoder, torch.device("cpu"))
    height, width = network.frame((image.shape[0], image.shape[1])).model_size
    points = torch.cartesian_prod((torch.arange(8) + 0.5) * width / 8, (torch.arange(8) + 0.5) * height / 8)
    parts = list(network.decoder.decode(network.embed(image), network.encode_points(points), -torch.inf))
    low, iou = (torch.cat(part).flatten(0, 1) for part in zip(*parts, strict=True))
    return low > 0, iou


def rounded(proposer: SamProposer) -> SamProposer:
    """bfloat16 as a processor without kernels for it computes: in float32, every module's result rounded."""
    for part in (proposer.sam.image_encoder, proposer.sam.mask_decoder):
        for parameter in part.parameters():
            parameter.data = parameter.data.bfloat16().float()
        for module in part.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda _, given, out: out.bfloat16().float())
    return proposer


@pytest.mark.parametrize("kernels", ["the processor's", "none"])
def test_in_bfloat16_every_prompt_has_nearly_its_mask(kernels: str) -> None:
    """The guarantee of docs/guide/proposers.md. Which of several like masks suppression keeps is no part of it."""
    overlaps, differences = [], []
    whole = SamProposer("sam")
    half = rounded(SamProposer("sam")) if kernels == "none" else SamProposer("sam", precision="bfloat16")
    for seed in range(3, 9):
        image = scene_of(seed)
        (masks, scores), (others, theirs) = answers(whole, image), answers(half, image)
        sure = scores > TRAINED["pred_iou_thresh"]
        masks, others = masks[sure], others[sure]
        overlaps.append((masks & others).sum((1, 2)) / (masks | others).sum((1, 2)))
        differences.append((scores - theirs)[sure].abs())
    overlap, difference = torch.cat(overlaps), torch.cat(differences)
    assert len(overlap) > 150 and difference.max() > 0  # it is another precision
    assert overlap.min() >= 0.7 and (overlap >= 0.9).float().mean() >= 0.97 and overlap.median() >= 0.98
    assert difference.max() <= 0.1


def test_a_small_budget_and_little_memory_change_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(48, 64)
    whole = proposer_of(checkpoint).propose(image)
    small = proposer_of(checkpoint, memory_budget_mb=1, points_per_batch=10_000)
    assert small.decoder.batch < 10_000
    assert torch.equal(small.propose(image).masks, whole.masks)
    poor = proposer_of(checkpoint, points_per_batch=9)
    attend, batches = poor.decoder._attend, []

    def out_of_memory(embedding: torch.Tensor, sparse: torch.Tensor) -> Any:
        batches.append(sparse.shape[1])
        if sparse.shape[1] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return attend(embedding, sparse)

    monkeypatch.setattr(poor.decoder, "_attend", out_of_memory)
    assert torch.equal(poor.propose(image).masks, whole.masks)
    assert batches == [9, 5, 3, 3, 3]
    monkeypatch.setattr(poor.decoder, "_attend", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        poor.propose(image)


def test_exact_mode_enlarges_and_shrinks_images_of_the_grids_own_side() -> None:
    """The package does too; taking the logits as they are gives other masks."""
    image = np.asarray(Image.fromarray(scene_of(4)).resize((64, 64)))
    expected = SamAutomaticMaskGenerator(to_package(backend.load_sam()), **TRAINED).generate(image)
    theirs = torch.from_numpy(np.stack([record["segmentation"] for record in expected]))
    found = SamProposer("sam", mode="exact", mask_nms_thresh=None, max_candidates=None, **TRAINED).propose(image)
    assert float((pairwise_iou(theirs, found.masks).amax(1) >= 0.99).float().mean()) >= 0.995


def test_asking_again_goes_on_when_memory_runs_out(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(4).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    whole = proposer_of(checkpoint, points_per_batch=9, refine=True)
    poor = proposer_of(checkpoint, points_per_batch=9, refine=True)
    redrawn, batches = poor.decoder._redecode_batch, []

    def out_of_memory(embedding: Any, sparse: torch.Tensor, low: torch.Tensor) -> Any:
        batches.append(len(sparse))
        if len(sparse) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return redrawn(embedding, sparse, low)

    monkeypatch.setattr(poor.decoder, "_redecode_batch", out_of_memory)
    expected, found = whole.propose(image), poor.propose(image)
    assert batches and max(batches) > 2
    assert float((pairwise_iou(expected.masks, found.masks).amax(1) > 0.99).float().mean()) == 1


def test_prompts_are_decoded_once_though_another_thread_halves_the_batch() -> None:
    decoder = PointDecoder(backend.load_sam(), 4)
    slices = []

    def work(rows: slice) -> int:
        slices.append(rows)
        decoder.batch = 2
        return 0

    assert len(list(decoder._in_batches(8, work))) == len(slices)
    assert [number for rows in slices for number in range(8)[rows]] == list(range(8))


@pytest.mark.parametrize(("setting", "value"), [("mode", "Exact"), ("precision", "bf16")])
def test_words_that_are_not_known_are_told(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} '{value}' is unknown; expected one of"):
        SamProposer("sam", **{setting: value})  # type: ignore[arg-type]


def test_half_the_digits_are_not_exact() -> None:
    with pytest.raises(ValueError, match="mode exact needs precision float32, got bfloat16"):
        SamProposer("sam", mode="exact", precision="bfloat16")


@pytest.mark.slow
def test_compiled_it_gives_the_same_masks() -> None:
    image = scene_of(3)
    plain, compiled = (
        SamProposer("sam", compile=c, points_per_batch=20, **TRAINED).propose(image) for c in (False, True)
    )
    assert len(plain) == len(compiled)
    assert float(pairwise_iou(plain.masks, compiled.masks).max(1).values.min()) > 0.99


def test_prompts_equal_the_packages_predictor(checkpoint: Path) -> None:
    image, proposer = image_of(48, 80), proposer_of(checkpoint)
    predictor = SamPredictor(to_package(proposer.sam))
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(point_coords=np.array([[30.0, 20.0]]), point_labels=np.array([1]))
    np.testing.assert_array_equal(proposer.segment_point(image, (30.0, 20.0)).numpy(), masks[scores.argmax()])
    masks, scores, _ = predictor.predict(box=np.array([5.0, 6.0, 50.0, 40.0]))
    np.testing.assert_array_equal(proposer.segment_box(image, (5, 6, 50, 40)).numpy(), masks[scores.argmax()])
    boxes = torch.tensor([[30.0, 3, 70, 30], [5, 6, 50, 40], [0, 0, 80, 48]])
    proposer.decoder.batch = 2
    found = proposer.segment_boxes(image, boxes)
    assert len(found) == 3 and float(found.scores[1]) == pytest.approx(float(scores.max()), abs=1e-5)
    np.testing.assert_array_equal(found.masks[1].numpy(), masks[scores.argmax()])
    assert len(proposer.segment_boxes(image, torch.zeros(0, 4))) == 0


def test_one_mask_a_point_is_the_packages_single_output(checkpoint: Path) -> None:
    image, proposer = image_of(48, 80), proposer_of(checkpoint, masks_per_point=1, mode="exact")
    predictor = SamPredictor(to_package(proposer.sam))
    predictor.set_image(image)
    grid = SamAutomaticMaskGenerator(to_package(proposer.sam), points_per_side=3).point_grids[0] * (80, 48)
    found = proposer.propose(image)
    assert 0 < len(found) <= len(grid)
    wanted = [
        predictor.predict(point_coords=point[None], point_labels=np.ones(1), multimask_output=False) for point in grid
    ]
    told = {round(float(scores[0]), 4): masks[0] for masks, scores, _ in wanted}
    for mask, score in zip(found.masks, found.scores, strict=True):
        np.testing.assert_array_equal(mask.numpy(), told[round(float(score), 4)])
    with pytest.raises(ValueError, match="masks_per_point must be 1 or 3, got 2"):
        proposer_of(checkpoint, masks_per_point=2)


def test_it_is_a_promptable_proposer(checkpoint: Path) -> None:
    assert isinstance(proposer_of(checkpoint), PromptableProposer)


def test_settings_of_few_candidates_and_large_images(checkpoint: Path) -> None:
    proposer, image = proposer_of(checkpoint, mask_nms_thresh=0.8, max_candidates=5, refine=True), image_of(300, 150)
    found = proposer.propose(image)
    assert found.image_size == (300, 150)
    assert 0 < len(found) <= 5
    assert set(found.columns) == {"predicted_iou", "stability_score"}


def test_nothing_found_is_an_empty_set(checkpoint: Path) -> None:
    found = proposer_of(checkpoint, pred_iou_thresh=1e6).propose(image_of(48, 64))
    assert len(found) == 0
    assert found.image_size == (48, 64)


def test_small_regions_are_mended(checkpoint: Path) -> None:
    found = proposer_of(checkpoint, min_mask_region_area=20).propose(image_of(64, 64))
    assert found.masks.flatten(1).any(1).all()


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 3))])
def test_images_of_other_kinds_are_refused(checkpoint: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        proposer_of(checkpoint).propose(image)


def test_loading_errors(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not found"):
        backend.load_sam("compact", tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match="model_type"):
        backend.load_sam("vit_x", checkpoint)
    with pytest.raises(FileNotFoundError, match=r"sam_vit_b_01ec64\.pth"):
        backend.load_sam("vit_b", tmp_path / "sam_vit_b_01ec64.pth")
    fake = tmp_path / "sam_vit_b_01ec64.pth"
    fake.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="SHA-256"):
        backend.load_sam("vit_b", fake)
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, backend.build_sam(**TINY).state_dict(), {"system": "ras"})
    with pytest.raises(ValueError, match="'ras'"):
        backend.load_sam("compact", other)
    write_checkpoint(other, backend.build_sam(**TINY).state_dict(), {"system": "sam", "config": {"sides": 3}})
    with pytest.raises(ValueError, match="config"):
        backend.load_sam("compact", other)


def scene_batch(task: SamTask, count: int) -> MaskBatch:
    preparer, scenes = task.preparer(PrepareSettings(), training=False), SceneGroups("val", 3, count)
    return preparer.collate([preparer.prepare(scenes, k, np.random.default_rng(k), 1) for k in range(count)])


def test_training_reaches_every_part_and_pads_like_sam() -> None:
    torch.manual_seed(0)
    task = SamTask(TINY, precision="fp32")
    batch = scene_batch(task, 8)
    flat = next(k for k, (height, width) in enumerate(batch.sizes.tolist()) if height < width)
    assert batch.sizes[flat].tolist() == [48, 64]
    images, index = task.prepare(batch)
    assert torch.equal(index[flat, :48], batch.index()[flat, 8:56]) and index[flat, :48].any()
    assert not images[flat, :, 48:].any()
    losses = task.train().loss(batch)
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert [name for name, p in task.named_parameters() if p.grad is None] == []
    assert task.validate(batch).keys() == losses.keys()
    assert task.learned_state().keys() == task.sam.state_dict().keys()


def test_card_written_by_training(tmp_path: Path) -> None:
    task = SamTask(TINY)
    config = {"class_path": "maskselect.recipes.compact.sam.SamTask", "init_args": {"model": TINY}}
    write_checkpoint(tmp_path / "sam.safetensors", task.learned_state(), {"system": task.name, "config": config})
    assert backend.load_sam("compact", tmp_path).image_encoder.img_size == TINY["image_size"]


def test_warm_up_trains_the_encoder_alone() -> None:
    task = SamTask(TINY, warmup_steps=1, precision="fp32").train()
    batch = scene_batch(task, 1)
    assert task.loss(batch).keys() == {"loss", "auxiliary"}
    assert "mask" in task.loss(batch)
