"""Mixtures of training sources."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from maskselect.backends.training_data import training_data
from maskselect.data.mixing import MixedGroups
from maskselect.evaluation.leakage import find_overlaps
from maskselect.scenes.groups import SceneGroups
from maskselect.structures.groups import Annotated, Query
from maskselect.training.data import GroupsData
from maskselect.training.draws import NumberedDraws


class Named:
    """A source of `count` images called after it."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def image_id(self, item: int) -> str:
        assert 0 <= item < self.count
        return f"{self.name}/{item}"

    def version(self, item: int) -> str:
        return "1"

    def load(self, item: int) -> Annotated:
        return Annotated(np.full((2, 2, 3), item, np.uint8), torch.ones(1, 2, 2, dtype=torch.bool))

    def queries(self, item: int, extra: dict[str, Tensor], count: int, rng: np.random.Generator) -> list[Query]:
        return [Query(f"{self.name} {item} {rng.integers(9)}", (), (0,))] * count

    def caption(self, item: int, extra: dict[str, Tensor], rng: np.random.Generator) -> str:
        return f"{self.name} {item}"


def published(seed: int = 0, draws: int = 26_000) -> MixedGroups:
    """9 : 3 : 1 over kinds, evenly over the sets of a kind."""
    semantic = MixedGroups([Named(f"semantic{n}", 50 * (n + 1)) for n in range(5)], seed=seed)
    refer = MixedGroups([Named(f"refer{n}", 30) for n in range(4)], seed=seed)
    return MixedGroups([semantic, refer, Named("reason", 20)], [9, 3, 1], draws, seed)


def test_kinds_come_at_their_rates_and_sets_and_images_evenly() -> None:
    mixed = published()
    ids = [mixed.image_id(item) for item in range(len(mixed))]
    sets = Counter(name.partition("/")[0] for name in ids)
    kinds = Counter(name.rstrip("0123456789") for name in sets.elements())
    for kind, share in (("semantic", 9 / 13), ("refer", 3 / 13), ("reason", 1 / 13)):
        assert kinds[kind] / len(ids) == pytest.approx(share, abs=0.012)  # about four standard deviations
    for number in range(5):  # a set of more images is not drawn more often
        assert sets[f"semantic{number}"] / len(ids) == pytest.approx(9 / 13 / 5, abs=0.01)
    for number in range(4):
        assert sets[f"refer{number}"] / len(ids) == pytest.approx(3 / 13 / 4, abs=0.01)
    images = Counter(name for name in ids if name.startswith("reason/"))
    assert len(images) == 20 and max(images.values()) < 2 * min(images.values())


def test_draws_follow_from_seed_and_number_alone() -> None:
    first, again, other = published(1), published(1), published(2)
    ids = [first.image_id(item) for item in range(200)]
    assert ids == [again.image_id(item) for item in range(200)]
    assert ids[::-1] == [first.image_id(item) for item in reversed(range(200))]
    assert ids != [other.image_id(item) for item in range(200)]


def test_every_call_speaks_of_the_same_image() -> None:
    mixed = published()
    for item in range(30):
        name, _, own = mixed.image_id(item).partition("/")
        assert mixed.load(item).image[0, 0, 0] == int(own)
        asked = mixed.queries(item, {}, 3, np.random.default_rng(item))
        assert len(asked) == 3 and asked[0].text.startswith(f"{name} {own} ")
        assert mixed.caption(item, {}, np.random.default_rng(0)) == f"{name} {own}"


def test_a_rate_of_nothing_is_never_drawn() -> None:
    mixed = MixedGroups([Named("a", 3), Named("b", 3), Named("c", 3)], [0, 1, 0], draws=500)
    assert {mixed.place(item)[0] for item in range(500)} == {1}


def test_one_pass_takes_every_draw_once() -> None:
    """The sampler's order is a permutation of the draws, so that a run of `draws` items has the mixture exactly."""
    mixed = published(draws=40)
    order = list(islice(NumberedDraws(len(mixed), seed=3), 40))
    assert sorted(order) == list(range(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": []}, "0 sources"),
        ({"sources": [Named("a", 1)], "rates": [1, 2]}, "1 sources and 2 rates"),
        ({"sources": [Named("a", 1)], "rates": [0]}, "expected numbers from 0"),
        ({"sources": [Named("a", 1)], "rates": [-1]}, "expected numbers from 0"),
        ({"sources": [Named("a", 1)], "rates": [float("nan")]}, "expected numbers from 0"),
        ({"sources": [Named("a", 1), Named("b", 0)]}, "source 1 of a mixture has no images"),
        ({"sources": [Named("a", 1)], "draws": 0}, "0 draws"),
    ],
)
def test_what_cannot_be_mixed_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedGroups(**arguments)


def test_mixtures_of_mixtures_are_made_from_configs() -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    scenes = {"class_path": "maskselect.scenes.groups.SceneGroups"}
    made = {
        "class_path": "maskselect.data.mixing.MixedGroups",
        "init_args": {
            "rates": [3, 1],
            "draws": 7,
            "sources": [
                {
                    "class_path": "maskselect.data.mixing.MixedGroups",
                    "init_args": {"sources": [scenes | {"init_args": {"count": 4}}]},
                },
                scenes | {"init_args": {"count": 2, "seed": 5}},
            ],
        },
    }
    path = "maskselect.training.data.GroupsData"
    parsed = parser.parse_object({"data": {"class_path": path, "init_args": {"train": made, "val": scenes}}})
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # the newer name, and the older one
    data = instantiate(parsed).data
    assert isinstance(data, GroupsData) and isinstance(data.train_source, MixedGroups) and len(data.train_source) == 7
    inner, outer = data.train_source.sources
    assert isinstance(inner, MixedGroups) and isinstance(outer, SceneGroups) and len(outer) == 2
    assert data.train_source.image_id(0) in {s.image_id(n) for s in (inner.sources[0], outer) for n in range(len(s))}


def test_a_mixture_tells_what_each_of_its_sets_has_seen() -> None:
    one, other = (
        {"class_path": "maskselect.data.groups.DatasetGroups", "init_args": {"dataset": name, "split": split}}
        for name, split in (("coco-stuff", "train2017"), ("refcoco", "train"))
    )
    path = "maskselect.data.mixing.MixedGroups"
    inner = {"class_path": path, "init_args": {"sources": [one, one]}}
    mixed = {"class_path": path, "init_args": {"sources": [inner, other], "rates": [9, 3]}}
    told = find_overlaps(training_data(mixed), "refcoco", "val")
    assert told == [
        *find_overlaps(training_data(one), "refcoco", "val"),
        *find_overlaps(training_data(other), "refcoco", "val"),
    ]
    assert len(told) == 2
    assert find_overlaps(training_data(mixed), "reasonseg", "val") == []
    never = {"class_path": path, "init_args": {"sources": [inner, other], "rates": [0, 3]}}
    assert find_overlaps(training_data(never), "refcoco", "val") == find_overlaps(
        training_data(other), "refcoco", "val"
    )
