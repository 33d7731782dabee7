"""The words of the prompts about motion, in the forms of `phrases.py`: the second half of a pair is held out.

"{s}", "{es}", "{is}", "{has}" and "{does}" agree with the noun. A form that does not start with "that" can follow "is",
so a held-out form is new also without "that is".
"""

from maskselect.scenes.phrases import Forms


def _towards(word: str, upper: str = "") -> Forms:
    """Forms of a direction; `upper` is a second word for it."""
    to = f"to the {word}" if word in ("left", "right") else f"{word}wards"
    other = upper or to
    return Forms(
        (f"moving {word}", f"moving {to}", f"that move{{s}} {word}", f"that move{{s}} {to}", f"that {{is}} moving {to}",
         f"going {word}", f"that go{{es}} {other}", f"that {{is}} moving {word}", f"heading {word}"),
        (f"that {{is}} heading {to}", f"going {to}"),
    )  # fmt: skip


def _diagonal(vertical: str, side: str) -> Forms:
    corner = f"{'upper' if vertical == 'up' else 'lower'} {side}"
    return Forms(
        (f"moving {vertical} and to the {side}", f"moving to the {corner}", f"that move{{s}} to the {corner}",
         f"that {{is}} moving {vertical} and to the {side}", f"moving towards the {corner}",
         f"moving diagonally to the {corner}", f"that go{{es}} {vertical} and to the {side}"),
        (f"that {{is}} going towards the {corner}", f"that go{{es}} diagonally to the {corner}"),
    )  # fmt: skip


MOTION_CLAUSES: dict[str, Forms] = {
    "moves left": _towards("left"),
    "moves right": _towards("right"),
    "moves up": _towards("up"),
    "moves down": _towards("down"),
    "moves up left": _diagonal("up", "left"),
    "moves up right": _diagonal("up", "right"),
    "moves down left": _diagonal("down", "left"),
    "moves down right": _diagonal("down", "right"),
    "still": Forms(
        ("not moving", "that {does} not move", "that stay{s} in one place", "that stay{s} still", "standing still",
         "staying in one place", "that {is} not moving"),
        ("that stay{s} in the same place", "that {is} standing in one place"),
    ),
    "moves": Forms(
        ("moving", "that {is} moving", "that move{s}", "in motion", "moving around",
         "moving from one place to another"),
        ("that move{s} from one place to another", "that go{es} from one place to another"),
    ),
    "returns": Forms(
        ("going away and coming back", "that go{es} away and come{s} back", "that move{s} back again",
         "coming back to the same place", "that come{s} back to the same place", "moving there and back again"),
        ("that move{s} there and back again", "that go{es} there and come{s} back"),
    ),
    "turns": Forms(
        ("turning", "turning around", "spinning", "rotating", "that turn{s}", "that turn{s} around", "that spin{s}",
         "that rotate{s}", "that {is} turning"),
        ("spinning around", "that spin{s} around"),
    ),
    "grows": Forms(
        ("growing", "getting bigger", "getting larger", "coming nearer", "coming closer", "that grow{s}",
         "that get{s} bigger", "that come{s} closer", "that {is} growing"),
        ("that get{s} larger", "that come{s} nearer"),
    ),
    "shrinks": Forms(
        ("shrinking", "getting smaller", "going further away", "that shrink{s}", "that get{s} smaller",
         "that {is} shrinking", "that go{es} further away"),
        ("that move{s} further away", "moving further away"),
    ),
    "leaves": Forms(
        ("leaving the picture", "that leave{s} the picture", "moving out of the picture", "going out of view",
         "that go{es} out of the image", "that leave{s} the image", "that move{s} out of view"),
        ("that go{es} out of view", "moving out of the image"),
    ),
    "enters": Forms(
        ("entering the picture", "that enter{s} the picture", "coming into the picture",
         "coming into view from outside",
         "that move{s} into the picture", "that come{s} in from outside", "that enter{s} the image"),
        ("that come{s} into the picture", "that come{s} into view from outside"),
    ),
    "appears": Forms(
        ("that appear{s} later", "appearing later", "that {is} not there at the beginning",
         "that {is} not there at first",
         "not there at the beginning"),
        ("that come{s} into view later", "that {is} missing at the beginning"),
    ),
    "hidden": Forms(
        ("hidden by another object", "that {is} hidden by another object", "that get{s} hidden by another object",
         "covered by another object", "that get{s} covered by something", "hidden by something else at some time"),
        ("that get{s} covered by another object", "that get{s} hidden by something else"),
    ),
    "covers": Forms(
        ("passing in front of another object", "that pass{es} in front of another object",
         "moving in front of something else", "that move{s} in front of another object",
         "that {is} passing in front of something"),
        ("that pass{es} in front of something else", "that {is} moving in front of another object"),
    ),
    "emerges": Forms(
        ("coming out from behind another object", "that come{s} out from behind another object",
         "that appear{s} from behind another object", "appearing from behind something"),
        ("that come{s} out from behind something", "that {is} appearing from behind another object"),
    ),
    "same direction": Forms(
        ("moving in the same direction as {0}", "that move{s} in the same direction as {0}",
         "going the same way as {0}", "that go{es} the same way as {0}", "that {is} moving the same way as {0}"),
        ("that {is} going in the same direction as {0}", "that move{s} the same way as {0}"),
    ),
    "opposite direction": Forms(
        ("moving in the opposite direction to {0}", "that move{s} in the opposite direction to {0}",
         "going the opposite way to {0}", "that go{es} the opposite way to {0}"),
        ("that {is} going in the opposite direction to {0}", "that move{s} the opposite way to {0}"),
    ),
    "faster": Forms(
        ("faster than {0}", "moving faster than {0}", "that move{s} faster than {0}", "that {is} faster than {0}",
         "going faster than {0}"),
        ("that go{es} faster than {0}",),
    ),
    "slower": Forms(
        ("moving more slowly than {0}", "that move{s} more slowly than {0}", "moving slower than {0}",
         "that move{s} slower than {0}", "that {is} moving slower than {0}"),
        ("that go{es} more slowly than {0}", "going slower than {0}"),
    ),
    "hidden by": Forms(
        ("hidden by {0} at some time", "that {is} hidden by {0} at some time", "that get{s} hidden by {0}",
         "covered by {0}", "that get{s} covered by {0}"),
        ("that {is} covered by {0} at some time",),
    ),
    "passes in front of": Forms(
        ("passing in front of {0}", "that pass{es} in front of {0}", "moving in front of {0}",
         "that move{s} in front of {0}"),
        ("that go{es} in front of {0}", "going in front of {0}"),
    ),
    "enters before": Forms(
        ("entering the picture before {0}", "that enter{s} the picture before {0}", "that come{s} in before {0}"),
        ("that come{s} into the picture before {0}",)),
    "enters after": Forms(
        ("entering the picture after {0}", "that enter{s} the picture after {0}", "that come{s} in after {0}"),
        ("that come{s} into the picture after {0}",)),
    "leaves before": Forms(
        ("leaving the picture before {0}", "that leave{s} the picture before {0}", "that go{es} out before {0}"),
        ("that go{es} out of the picture before {0}",)),
    "leaves after": Forms(
        ("leaving the picture after {0}", "that leave{s} the picture after {0}", "that go{es} out after {0}"),
        ("that go{es} out of the picture after {0}",)),
}  # fmt: skip
"""Forms of the states, directions and relations of `clip_facts.py`."""

MOTION_EXTREME_WORDS = {"fastest": ("fastest",), "slowest": ("slowest moving",)}
MOTION_EXTREME_AFTER: dict[str, Forms] = {
    "fastest": Forms(("that moves fastest", "that moves the fastest", "that is the fastest", "moving fastest"),
                     ("that is moving the fastest",)),
    "slowest": Forms(("that moves the slowest", "that moves most slowly", "moving most slowly"),
                     ("that is the slowest",)),
    "moves furthest": Forms(("that moves the furthest", "that moves furthest", "that goes the furthest way"),
                            ("that goes furthest",)),
    "appears last": Forms(("that appears last", "that is the last to appear", "appearing last"),
                          ("that is the last one to appear",)),
    "enters first": Forms(("that enters the picture first", "that is the first to enter the picture",
                           "entering the picture first", "that comes in first"),
                          ("that is the first to come in", "that comes into the picture first")),
    "enters last": Forms(("that enters the picture last", "that is the last to enter the picture",
                          "entering the picture last", "that comes in last"),
                         ("that is the last to come in", "that comes into the picture last")),
    "leaves first": Forms(("that leaves the picture first", "that is the first to leave the picture",
                           "leaving the picture first", "that goes out first"),
                          ("that is the first to go out", "that goes out of the picture first")),
    "leaves last": Forms(("that leaves the picture last", "that is the last to leave the picture",
                          "leaving the picture last", "that goes out last"),
                         ("that is the last to go out", "that goes out of the picture last")),
}  # fmt: skip

MOTION_REASONS: dict[str, Forms] = {
    "still": Forms(("Which {noun} {is} in the same place all the time?", "Which {noun} seem{s} to be fixed?"),
                   ("Which {noun} seem{s} to be in the same place all the time?",)),
    "returns": Forms(("Which {noun} {is} back in the old place at the end?", "Which {noun} end{s} where it all began?"),
                     ("Which {noun} {is} back at the end where it all began?",)),
    "turns": Forms(("Which {noun} would make you dizzy?", "On which {noun} would a rider get dizzy?"),
                   ("Which {noun} would make a rider dizzy?",)),
    "grows": Forms(("Which {noun} would soon be too close to the camera?", "Which {noun} seem{s} to come towards you?"),
                   ("Which {noun} would soon be too close to you?",)),
    "shrinks": Forms(("Which {noun} would soon be too far away to see?", "Which {noun} seem{s} to go away from you?"),
                     ("Which {noun} would soon be too far away from you?",)),
    "leaves": Forms(("Which {noun} can you not find at the end?", "Which {noun} {is} missing at the end?",
                     "Which {noun} would you have to look for outside the picture at the end?"),
                    ("Which {noun} would you not find at the end?",)),
    "appears": Forms(("Which {noun} can you not find at the beginning?", "Which {noun} {is} missing at the beginning?"),
                     ("Which {noun} would you not find at the beginning?",)),
    "fastest": Forms(("Which {noun} would win a race?", "In a race, which {noun} would win?",
                     "If this is a race, who wins: which {noun}?"),
                     ("If this is a race, which {noun} would win?",)),
}  # fmt: skip
"""Questions about motion that do not name it, by state or extreme."""
