"""The words of prompts about photographs: synonyms, plurals and broader names of categories.

Every category is called by its own name and by words of `SYNONYMS`. Words of `UNSEEN` are never used in training: a
split of their own asks with them.
"""

from collections.abc import Mapping, Sequence

SYNONYMS: Mapping[str, Sequence[str]] = {
    "person": ("human", "human being"),
    "car": ("motorcar",),
    "bicycle": ("pushbike",),
    "motorcycle": ("motor bike",),
    "airplane": ("aeroplane",),
    "bus": ("coach",),
    "boat": ("small ship",),
    "truck": ("lorry",),
    "cat": ("house cat",),
    "dog": ("hound",),
    "cow": ("cattle",),
    "rhinoceros": ("rhino",),
    "handbag": ("purse",),
    "suitcase": ("luggage",),
    "sports ball": ("ball",),
    "cup": ("mug",),
    "tv": ("television set",),
    "cell phone": ("mobile phone",),
    "donut": ("doughnut",),
    "couch": ("settee",),
    "potted plant": ("plant in a pot",),
    "dining table": ("table",),
    "refrigerator": ("fridge",),
    "hair drier": ("hair dryer",),
    "book": ("volume",),
    "wheel": ("tyre",),
    "car light": ("lamp of a car",),
    "side mirror": ("wing mirror",),
    "windshield": ("car window",),
    "vegetation": ("greenery",),
    "road": ("street",),
    "fence": ("railing",),
    "mushroom": ("fungus",),
    "usb flash drive": ("memory stick",),
    "wine glass": ("goblet",),
    "tie": ("necktie",),
}
"""Other words for a category, also used in training."""

UNSEEN: Mapping[str, Sequence[str]] = {
    "person": ("pedestrian", "individual"),
    "car": ("automobile",),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "airplane": ("plane", "jet"),
    "cat": ("kitten", "kitty"),
    "dog": ("puppy",),
    "sheep": ("lamb",),
    "horse": ("pony",),
    "tv": ("television", "screen"),
    "cell phone": ("smartphone",),
    "couch": ("sofa",),
    "laptop": ("notebook computer",),
    "truck": ("pickup",),
    "cup": ("teacup",),
    "suitcase": ("trunk",),
    "mushroom": ("toadstool",),
    "potted plant": ("houseplant",),
    "window": ("window pane",),
    "bottle": ("flask",),
    "road": ("roadway",),
}
"""Words that no prompt of training has."""

BROADER: Mapping[str, Sequence[str]] = {
    "animal": (
        "bear", "bird", "cat", "cow", "dog", "elephant", "emu", "flamingo", "giraffe", "horse", "rhinoceros", "sheep",
        "zebra",
    ),
    "vehicle": ("airplane", "bicycle", "boat", "bus", "car", "motorcycle", "train", "truck"),
    "fruit": ("apple", "banana", "orange"),
    "food": (
        "apple", "banana", "broccoli", "cake", "carrot", "donut", "hot dog", "orange", "pizza", "sandwich",
    ),
    "piece of furniture": ("bed", "bench", "chair", "couch", "dining table"),
    "piece of cutlery": ("fork", "knife", "spoon"),
    "kitchen appliance": ("microwave", "oven", "refrigerator", "toaster"),
    "car part": ("bumper", "car door", "car hood", "car light", "car trunk", "side mirror", "wheel", "windshield"),
    "nut or dried fruit": ("date", "fig", "hazelnut"),
}  # fmt: skip
"""Broader names. One is asked for only where all its categories that the vocabulary has are annotated."""

_PLURALS = {
    "person": "people",
    "human": "humans",
    "sheep": "sheep",
    "cattle": "cattle",
    "cow": "cows",
    "mouse": "mice",
    "knife": "knives",
    "skis": "skis",
    "scissors": "scissors",
    "luggage": "luggage",
    "vegetation": "vegetation",
    "greenery": "greenery",
    "fungus": "fungi",
    "plant in a pot": "plants in pots",
    "lamp of a car": "lamps of a car",
    "piece of furniture": "pieces of furniture",
    "piece of cutlery": "pieces of cutlery",
    "nut or dried fruit": "nuts and dried fruit",
    "food": "food",
    "fruit": "fruit",
    "broccoli": "broccoli",
}


def plural(word: str) -> str:
    """The plural of a name."""
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def words_of(category: str, unseen: bool = False) -> tuple[str, ...]:
    """The words for a category: its name and synonyms, or those that training never uses."""
    return tuple(UNSEEN.get(category, ())) if unseen else (category, *SYNONYMS.get(category, ()))


def with_article(word: str) -> str:
    """A name behind its indefinite article, by its first letter."""
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"
