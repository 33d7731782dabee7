"""The training data of Text4Seg and Text4Seg++ as lists of parts, and `RecipeGroups`, a source of all parts of a list.

Text4Seg (arXiv 2410.09855) trains in stages: referring expressions, then gRefCOCO on top; COCO-Stuff for open
vocabularies; LLaVA's dialogues with referring expressions among them. Text4Seg++ (arXiv 2509.06321) trains one model on
one mixture. It states images and samples of each part. The passes over RRSIS-D and EarthReason are inferred from these,
5 each, and the two questions for each image of COCO panoptic.

Known differences: text-only records of LLaVA are left out, because every item has an image; MUSE's and EarthReason's
text answers are not used, only their masks; no image is left out that other data sets are evaluated on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskselect.backends.config_tree import Arguments
from maskselect.data.groups import DatasetGroups
from maskselect.data.llava import DialogueGroups
from maskselect.data.mixing import JoinedGroups
from maskselect.recipes.text4seg.classes import ClassGroups
from maskselect.structures.groups import GroupSource
from maskselect.structures.needs import Need
from maskselect.structures.provenance import TrainingData

Kind = Literal["prompts", "classes", "dialogues"]


@dataclass(frozen=True)
class Part:
    """One data set of a recipe.

    Attributes:
        name: its name in the recipe.
        dataset, split: see `maskselect.data.catalog`.
        root: the name of its root, as in `ROOTS`.
        passes: number of passes over it.
        kind: `prompts` has a sample for each prompt, `dialogues` one for each conversation, `classes` one for each
            question, or one for all questions of an item if `together`.
        settings: further arguments of its source.
        together: see kind.
        images, samples: the paper's numbers, which it rounds; None if it states none.
    """

    name: str
    dataset: str
    split: str
    root: str
    passes: int = 1
    kind: Kind = "prompts"
    settings: Mapping[str, Any] = field(default_factory=dict)
    together: bool = False
    images: int | None = None
    samples: int | None = None

    def open(self, root: Path, seed: int = 0) -> GroupSource:
        """The source of one pass; for crops of all passes, because each pass has its own.

        Raises:
            FileNotFoundError, ValueError: as its reader.
        """
        if self.kind == "prompts":
            return DatasetGroups(self.dataset, root, self.split, **self.settings)
        if self.kind == "dialogues":
            return DialogueGroups(root, self.split)
        return ClassGroups(self.dataset, root, self.split, passes=self.passes, seed=seed, **self.settings)

    @property
    def repeats(self) -> int:
        """How often the source of `open` is repeated."""
        return 1 if self.kind == "classes" else self.passes


ROOTS = ("refer", "coco", "pix2cap", "reasonseg", "muse", "rrsisd", "earthreason", "llava")
"""The names of the folders: `refer` has the RefCOCO family with gRefCOCO, `coco` panoptic and COCO-Stuff labels."""


def _referring(passes: int, **more: Any) -> tuple[Part, ...]:
    names = ("refcoco", "refcoco+", "refcocog", "refclef")
    return tuple(Part(name, name, "train", "refer", passes, **more) for name in names)


RECIPES: Mapping[str, tuple[Part, ...]] = {
    "text4seg-res": _referring(2),
    "text4seg-gres": (Part("grefcoco", "grefcoco", "train", "refer", 2, samples=419_000),),
    "text4seg-ovs": (
        Part(
            "coco-stuff",
            "coco-stuff",
            "train2017",
            "coco",
            10,
            "classes",
            {"crops": (256, 336, 392, 448)},
            together=True,
            samples=1_160_000,
        ),
    ),
    "text4seg-665k": (Part("llava", "llava", "mix-665k", "llava", kind="dialogues", samples=665_000), *_referring(6)),
    "text4segpp": (
        Part("coco-panoptic", "coco-panoptic", "train2017", "coco", kind="classes", images=118_000, samples=236_000),
        *_referring(1),
        Part("grefcoco", "grefcoco", "train", "refer", images=17_000, samples=209_000),
        Part("pix2cap", "pix2cap", "train", "pix2cap", images=18_000, samples=152_000),
        Part("reasonseg", "reasonseg", "train", "reasonseg", settings={"reasoning": True}, images=209, samples=1_045),
        Part("muse", "muse", "train", "muse", settings={"reasoning": True}, images=102_000, samples=230_000),
        Part("rrsisd", "rrsisd", "train", "rrsisd", 5, images=12_000, samples=61_000),
        Part(
            "earthreason",
            "earthreason",
            "train",
            "earthreason",
            5,
            settings={"reasoning": True, "settings": {"every_question": True}},
            images=2_400,
            samples=71_000,
        ),
        Part("llava", "llava", "mix-665k", "llava", kind="dialogues", samples=665_000),
    ),
}
"""The parts of each recipe."""

FAMILIES: Mapping[tuple[str, str], tuple[int | None, int]] = {
    ("text4seg-res", "refer"): (None, 800_000),
    ("text4segpp", "refer"): (74_000, 439_000),
}
"""Images and samples that a paper states for the parts of a root together that have no numbers of their own."""


def parts_of(recipe: str, roots: Mapping[str, Any], names: Sequence[str] | None = None) -> list[Part]:
    """The parts of a recipe whose roots are given.

    Args:
        recipe: one of `RECIPES`.
        roots: folders by name, see `ROOTS`.
        names: only these parts; None for all.

    Raises:
        ValueError: an unknown recipe, root or part; a part that is named without its root; or nothing is left.
    """
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; expected one of {', '.join(RECIPES)}")
    known = [part.name for part in RECIPES[recipe]]
    if wrong := sorted(set(names or ()) - set(known)):
        raise ValueError(f"recipe {recipe} has no part {wrong[0]!r}; expected some of {', '.join(known)}")
    if wrong := sorted(set(roots) - set(ROOTS)):
        raise ValueError(f"unknown root {wrong[0]!r}; expected some of {', '.join(ROOTS)}")
    wanted = [part for part in RECIPES[recipe] if names is None or part.name in names]
    if names is not None and (without := [part for part in wanted if part.root not in roots]):
        raise ValueError(f"part {without[0].name} of {recipe} needs the root {without[0].root!r}, which is not given")
    if not (parts := [part for part in wanted if part.root in roots]):
        expected = ", ".join(dict.fromkeys(part.root for part in wanted))
        raise ValueError(f"recipe {recipe} has no data without a root; expected one or more of {expected}")
    return parts


class RecipeGroups(JoinedGroups):
    """A `GroupSource` of the parts of a recipe, each in its number of passes.

    A mixture of other sources is a `JoinedGroups` or a `MixedGroups` of them.

    Args:
        recipe: one of `RECIPES`.
        roots: folder of each root, see `ROOTS`; parts without a root are left out.
        parts: names of the parts to use; None for all with a root.
        seed: of the crops.

    Raises:
        ValueError: as `parts_of`, and for damaged data.
        FileNotFoundError: data are missing.
    """

    def __init__(
        self,
        recipe: str,
        roots: Mapping[str, Path],
        parts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.parts = parts_of(recipe, roots, parts)
        sources = [part.open(Path(roots[part.root]), seed) for part in self.parts]
        super().__init__(sources, [part.repeats for part in self.parts])

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The splits of all parts. Raises ValueError as `parts_of`."""
        roots = arguments["roots"]
        sources: dict[Kind, Any] = {"prompts": DatasetGroups, "classes": ClassGroups, "dialogues": DialogueGroups}
        found = []
        for part in parts_of(str(arguments["recipe"]), roots, arguments.get("parts")):
            own = {"dataset": part.dataset, "root": roots[part.root], "split": part.split}
            found += sources[part.kind].needs(own)
        return found

    @classmethod
    def training_data(cls, arguments: Arguments) -> list[TrainingData]:
        """The splits of all parts."""
        roots = arguments["roots"]
        return [
            TrainingData(part.dataset, part.split, root=str(roots[part.root]))
            for part in parts_of(str(arguments["recipe"]), roots, arguments.get("parts"))
        ]
