"""Uses and traits of the scenes' categories, without their names.

Every phrase is true of all drawings of its category, and of no other category of the generator. There are four kinds of
phrases for the grammar of the sentences:

- uses: infinitives without their object ("drink tea from": "what would you drink tea from?");
- goals: whole infinitives ("unlock a door": "what do you need to unlock a door?");
- reasons: whole sentences in the third person ("the door is locked");
- traits: predicates; "{s}", "{es}", "{is}" and "{has}" agree with the subject ("swim{s} in a river"). One that starts
  with "{has}" has no other verb that agrees, so that "with ..." can be said instead.

No phrase contains a category, colour, texture, size or side: these belong to the rest of a prompt. Held-out phrases
consist of words of the training phrases, because the compact models start without any knowledge of words, and each
contains a word that training uses for its category only.
"""

from typing import NamedTuple

from maskselect.scenes.phrases import Forms

_NONE = Forms(())


class Properties(NamedTuple):
    """Phrases about one category; see the module for the kinds. The second half of each is for `test-words` only."""

    uses: Forms = _NONE
    goals: Forms = _NONE
    reasons: Forms = _NONE
    traits: Forms = _NONE


PROPERTIES: dict[str, Properties] = {
    "circle": Properties(
        uses=Forms(
            ("draw with one turn of a pair of compasses", "draw around a coin"),
            ("draw with a pair of compasses in one turn",)),
        traits=Forms(
            ("{is} flat, round and without a hole", "{has} the flat round form of a dinner plate",
             "{has} the flat round form of a coin",
             "{has} a single edge that is equally far from the centre all around"),
            ("{is} as flat and round as a dinner plate", "{has} a round edge and the form of a coin")),
    ),
    "square": Properties(
        uses=Forms(("move a chess piece to",), ("move a piece to in chess",)),
        traits=Forms(
            ("{has} the form of a field on a chess board", "{has} the form of one face of a dice",
             "rest{s} on one of four equal sides", "{has} two level and two upright sides of the same length"),
            ("{has} two level and two upright sides of equal length", "{has} the same form as the face of a dice")),
    ),
    "triangle": Properties(
        uses=Forms(("strike with a metal stick in an orchestra",), ("play in an orchestra with a metal stick",)),
        traits=Forms(
            ("{has} exactly three corners", "{has} three straight sides", "{has} the form of a slice of pizza",
             "{has} the form of one side of a pyramid"),
            ("{has} three sides and exactly three corners", "{has} the sides of a slice of pizza")),
    ),
    "star": Properties(
        uses=Forms(
            ("make a wish on at night", "look at through a telescope", "steer a ship by"),
            ("look at through a telescope at night",)),
        goals=Forms(
            ("show how good a hotel is", "find the way across the sea at night"),
            ("steer a ship across the sea at night",)),
        reasons=Forms(
            ("the astronomer is waiting with a telescope",),
            ("the astronomer wants to look through a telescope",)),
        traits=Forms(
            ("twinkle{s} in the night sky", "{has} five or more equal tips", "tell{s} guests how good a hotel is"),
            ("twinkle{s} across the sky at night", "{has} five or more tips around the centre")),
    ),
    "ring": Properties(
        uses=Forms(
            ("wear on a finger", "exchange at a wedding", "spin around the waist", "throw over a peg at a fair"),
            ("put on a finger at a wedding", "spin around a peg at a fair")),
        goals=Forms(("get married", "get engaged to a bride"), ("get engaged and married",)),
        reasons=Forms(
            ("the wedding is about to start", "the bride holds out a finger"),
            ("the bride waits for the wedding",)),
        traits=Forms(
            ("{has} a wide round hole inside", "look{s} like a doughnut from above"),
            ("look{s} round with a wide hole inside", "{has} a hole like a doughnut")),
    ),
    "cross": Properties(
        uses=Forms(
            ("mark a wrong answer with", "mark a treasure on a map with", "put on a ballot paper"),
            ("mark a place on a map with", "put on a paper next to a wrong answer")),
        goals=Forms(
            ("show that an answer is wrong", "show where a treasure lies on a map"),
            ("show where an answer is wrong",)),
        reasons=Forms(("the answer of a pupil is wrong",), ("a pupil has a wrong answer",)),
        traits=Forms(
            ("{is} made of two bars that meet", "stand{s} on the tower of a church", "{has} four straight arms"),
            ("{has} arms made of two bars", "stand{s} on a church")),
    ),
    "diamond": Properties(
        uses=Forms(
            ("scratch glass with", "set into a crown as a precious stone", "mine deep in the earth"),
            ("cut glass with", "set into a necklace as a precious stone")),
        goals=Forms(("scratch a pane of glass", "cut through glass"), ("scratch glass with a precious stone",)),
        reasons=Forms(("the jeweller has a crown to finish",), ("the jeweller needs a precious stone",)),
        traits=Forms(
            ("{is} harder than anything else", "sparkle{s} in a crown or a necklace",
             "{has} the outline of a paper kite", "belong{s} to a suit of cards that does not mean love"),
            ("sparkle{s} as a precious stone", "{has} the form of a paper kite")),
    ),
    "heart": Properties(
        uses=Forms(
            ("send to somebody on Valentine's Day", "draw on a love letter", "listen to with a stethoscope"),
            ("draw on a letter for Valentine's Day", "listen to in the chest")),
        goals=Forms(("confess love to somebody", "decorate a love letter"), ("confess love in a letter",)),
        reasons=Forms(
            ("it is Valentine's Day", "somebody has fallen in love"),
            ("somebody has a love letter to decorate",)),
        traits=Forms(
            ("beat{s} in the chest of a person", "pump{s} blood through the body", "stand{s} for love",
             "{has} two round humps above a single tip"),
            ("pump{s} blood in the chest", "{has} a single tip under two round humps")),
    ),
    "mug": Properties(
        uses=Forms(
            ("drink tea from", "sip hot cocoa from", "pour coffee into", "stir milk and sugar in"),
            ("sip hot tea from", "pour hot cocoa into")),
        goals=Forms(
            ("have a hot coffee", "serve tea to a guest", "drink cocoa in the morning"),
            ("have a hot tea in the morning", "serve coffee")),
        reasons=Forms(("a guest asks for tea", "the coffee is ready to be poured"), ("the tea is hot and ready",)),
        traits=Forms(
            ("{has} a handle and room for a hot drink", "keep{s} coffee warm at breakfast"),
            ("{has} a handle and room for coffee", "keep{s} cocoa hot at breakfast")),
    ),
    "bottle": Properties(
        uses=Forms(
            ("close with a cork", "keep wine in", "screw a cap onto", "send a message across the sea in"),
            ("close with a screw cap", "keep lemonade in")),
        goals=Forms(
            ("carry water on a long hike", "bring lemonade to a picnic", "store wine"),
            ("bring water to a picnic", "store lemonade")),
        reasons=Forms(
            ("the hikers need water on the way", "the wine has to be stored"),
            ("the lemonade has to be stored", "the picnic needs lemonade")),
        traits=Forms(
            ("{has} a narrow neck and a cork", "{is} stored in a wine cellar", "{is} sold with lemonade inside"),
            ("{has} a narrow neck and a screw cap", "{is} sold with water or wine inside")),
    ),
    "ball": Properties(
        uses=Forms(
            ("kick across a field", "throw through a basket", "bounce on the floor", "hit with a racket"),
            ("bounce across a field", "kick into a goal")),
        goals=Forms(
            ("play tennis", "score a goal in a match", "play with a dog in the park"),
            ("play a match of tennis", "score in a match")),
        reasons=Forms(
            ("the players want to start the match", "the dog wants to play"),
            ("the players wait with a racket",)),
        traits=Forms(
            ("bounce{s} off the floor", "roll{s} over the line into the goal", "{is} round and filled with air"),
            ("roll{s} and bounce{s} across the floor", "{is} filled with air for a match")),
    ),
    "book": Properties(
        uses=Forms(
            ("read before going to sleep", "borrow from a library", "turn the pages of"),
            ("read in a library", "borrow and read")),
        goals=Forms(
            ("find out how a novel ends", "study history for an exam", "look up a poem"),
            ("study for an exam in history", "look up how a novel ends")),
        reasons=Forms(
            ("the children ask for a bedtime story", "the exam in history is next week"),
            ("the children ask how the novel ends",)),
        traits=Forms(
            ("{has} pages between two covers", "tell{s} a story in many chapters", "stand{s} on a shelf in a library"),
            ("{has} covers and many pages", "tell{s} a story on two pages")),
    ),
    "key": Properties(
        uses=Forms(
            ("unlock a door with", "open a padlock with", "turn in a lock", "hide under the doormat"),
            ("open a locked door with", "unlock a padlock with")),
        goals=Forms(
            ("get through a locked door", "open a padlock", "get into a locked room"),
            ("open a locked room", "get through a door with a padlock")),
        reasons=Forms(
            ("the door is locked", "the gate is shut with a padlock"),
            ("the room is locked", "the gate is locked")),
        traits=Forms(
            ("fit{s} into a lock", "unlock{s} doors and gates", "hang{s} on a chain to open doors"),
            ("unlock{s} gates", "fit{s} into the lock of a gate")),
    ),
    "leaf": Properties(
        uses=Forms(
            ("rake up in autumn", "feed to a caterpillar", "sweep from the lawn"),
            ("rake from the lawn", "sweep up in autumn")),
        goals=Forms(("feed a hungry caterpillar", "make a pile with a rake"), ("feed two hungry caterpillars",)),
        reasons=Forms(
            ("the caterpillar is hungry", "the caterpillar looks for food"),
            ("a hungry caterpillar waits for food",)),
        traits=Forms(
            ("grow{s} on a twig", "fall{s} to the ground in autumn", "{is} nibbled by caterpillars",
             "{has} veins and a stalk"),
            ("fall{s} off a twig in autumn", "{has} a stalk that grows on a twig")),
    ),
    "fish": Properties(
        uses=Forms(
            ("catch with a rod", "keep in an aquarium", "fry in a pan", "pull out of a lake with a net"),
            ("catch with a net", "pull out of an aquarium")),
        goals=Forms(("feed a seal", "fill an aquarium"), ("feed a hungry seal",)),
        reasons=Forms(("the seal waits for food", "there is nothing alive in the aquarium"), ("the seal is hungry",)),
        traits=Forms(
            ("breathe{s} through gills", "{has} fins and scales", "swim{s} in a river"),
            ("swim{s} in an aquarium", "{has} gills and fins")),
    ),
    "house": Properties(
        uses=Forms(
            ("live in with a family", "build of bricks", "rent with three bedrooms"),
            ("live in and rent", "build for a family")),
        goals=Forms(
            ("bring up a family under one roof", "have a kitchen and a bedroom", "move in with a family"),
            ("have a roof and a kitchen",)),
        reasons=Forms(
            ("the family has no place to live", "a couple wants a kitchen and a bedroom"),
            ("the couple has no roof to live under",)),
        traits=Forms(
            ("{has} walls, a roof and a front door", "{has} bedrooms and a kitchen", "{is} built of bricks"),
            ("{has} a kitchen and a front door", "{is} built for a family")),
    ),
    "car": Properties(
        uses=Forms(
            ("drive to work", "fill up with petrol", "park in a garage"),
            ("drive into a garage", "drive to work and park")),
        goals=Forms(
            ("travel along a motorway", "drive to the next town", "pass a driving test"),
            ("drive along a motorway", "travel to the next town")),
        reasons=Forms(("the office is many miles away", "the last bus is gone"), ("the next town is many miles away",)),
        traits=Forms(
            ("{has} an engine and wheels", "need{s} petrol", "wait{s} in a traffic jam on the motorway"),
            ("{has} wheels and an engine", "need{s} petrol for an engine")),
    ),
    "tree": Properties(
        uses=Forms(
            ("plant in a forest", "hang a swing from", "cut down for timber", "climb to reach a nest"),
            ("climb in a forest", "plant for timber")),
        goals=Forms(("hang up a swing", "offer birds a place for a nest", "make timber"), ("get timber for a swing",)),
        reasons=Forms(
            ("the birds look for a place to build a nest", "the sawmill runs out of timber"),
            ("the birds in the forest need a place for a nest",)),
        traits=Forms(
            ("{has} a trunk, bark and roots", "grow{s} in a forest", "{has} roots deep in the ground"),
            ("{has} bark and a trunk", "{has} roots and a trunk")),
    ),
    "chair": Properties(
        uses=Forms(
            ("sit on at a table", "push under a desk", "offer to somebody who is tired of standing"),
            ("sit on at a desk", "push under a table")),
        goals=Forms(
            ("sit down at a table", "rest after standing for hours", "work at a desk without standing"),
            ("sit down after standing for hours", "work at a table without standing")),
        reasons=Forms(
            ("somebody at the table is still standing", "grandmother is tired of standing"),
            ("grandmother has to sit down",)),
        traits=Forms(
            ("{has} four legs and a back to lean against", "stand{s} at a table for somebody to sit on"),
            ("{has} a back to lean against and four legs", "stand{s} at a desk for somebody to sit on")),
    ),
    "lamp": Properties(
        uses=Forms(
            ("switch on when it gets dark", "put a new bulb into", "switch off before going to sleep"),
            ("switch on after sunset", "switch on in a dark room")),
        goals=Forms(
            ("light up a dark room", "see something after sunset", "see in the dark"),
            ("light up a room after sunset",)),
        reasons=Forms(
            ("it is too dark to see anything", "the room is dark after sunset"),
            ("it gets dark after sunset",)),
        traits=Forms(
            ("{has} a bulb and a shade", "shine{s} in a dark room", "need{s} electricity to give light"),
            ("{has} a shade around a bulb", "need{s} a bulb to give light")),
    ),
}  # fmt: skip
