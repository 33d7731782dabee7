"""The sentences of the reasoning prompts, around the phrases of `properties.py`.

"{use}", "{goal}", "{reason}" (as a separate sentence "{Reason}") and "{having}" stand for a phrase. So do "{trait}",
which agrees with "{noun}", "{trait1}", singular, and "{traits}", plural. "{noun}" and "{nouns}" stand for things with
the other conditions of the prompt ("red things on the left"); "{tail}" for a second sentence with them ("I mean the red
one."). A template without any of these three is for prompts without other conditions. Held-out templates are new
sentences from words of the training templates.
"""

from maskselect.scenes.phrases import Forms

FIGURE_NOUNS = ("shape", "figure", "shape", "thing", "object")
THING_NOUNS = ("thing", "object", "thing", "item")

TEMPLATES: dict[str, Forms] = {
    "use": Forms(
        ("What would you {use}?{tail}", "What could somebody {use}?{tail}", "What do people {use}?{tail}",
         "Find something to {use}.{tail}", "Show me what one can {use}.{tail}", "I need something to {use}.{tail}",
         "Is there anything here to {use}?", "Which {noun} would you {use}?", "Which {noun} can people {use}?",
         "Which of the {nouns} could you {use}?", "Of all the {nouns}, which would you {use}?",
         "Select the {noun} that people {use}.", "Mark the {noun} that somebody would {use}."),
        ("Could you show me which {noun} people would {use}?", "Is there something that one would {use}?",
         "Of all these {nouns}, which can somebody {use}?", "Find the {noun} that you could {use}.",
         "I need something to {use}. Which {noun} would you choose?", "What can one {use}?{tail}",
         "What is there to {use}?{tail}"),
    ),
    "goal": Forms(
        ("What do you need to {goal}?{tail}", "What would help me {goal}?{tail}", "What is needed to {goal}?{tail}",
         "I would like to {goal}. What do I need?{tail}", "If you wanted to {goal}, what would you choose?{tail}",
         "Find what somebody would need to {goal}.{tail}", "Which of these {nouns} could help somebody {goal}?",
         "Which {noun} could help somebody {goal}?", "I would like to {goal}. Which {noun} do I need?",
         "I want to {goal}, so show me the {noun} that I need.", "Select the {noun} that people need to {goal}."),
        ("Somebody would like to {goal}. Which {noun} would you choose?", "To {goal}, which {noun} do people need?",
         "Of all the {nouns}, which would help me {goal}?", "Show me what could help somebody {goal}.{tail}",
         "What would you choose if you wanted to {goal}?{tail}", "Find the {noun} that would help me {goal}."),
    ),
    "reason": Forms(
        ("{Reason}. What would help?{tail}", "{Reason}, so what is needed?{tail}",
         "What do people need when {reason}?{tail}", "Imagine that {reason}. What would you choose?{tail}",
         "{Reason}. Which {noun} could help?", "{Reason}. Show me the {noun} that would help.",
         "Because {reason}, somebody needs one of the {nouns}. Which would you choose?",
         "Find the {noun} that could help when {reason}."),
        ("When {reason}, which {noun} would you choose?", "{Reason}, so which of the {nouns} could help?",
         "Imagine that {reason}. Which {noun} {is} needed?", "Show me what is needed when {reason}.{tail}",
         "When {reason}, what do people need?{tail}"),
    ),
    "trait": Forms(
        ("What {trait1}?{tail}", "Which {noun} {trait}?", "Which of the {nouns} {trait}?",
         "Find the {noun} that {trait}.", "Show me what {trait1}.{tail}", "Is there anything here that {trait1}?",
         "I am looking for something that {trait1}.{tail}", "Of all the {nouns}, which {trait}?",
         "Select all {nouns} that {traits}."),
        ("Could you show me the {noun} that {trait}?", "Show me which {noun} {trait}.", "Find what {trait1}.{tail}",
         "Is there something here that {trait1}?", "Of all these {nouns}, select all that {traits}.",
         "Mark anything that {trait1}.{tail}"),
    ),
    "having": Forms(
        ("Find the {noun} with {having}.", "The {noun} with {having}", "Where {is} the {noun} with {having}?",
         "Show me something with {having}.{tail}"),
        ("Select the {noun} with {having}.", "Could you show me the {noun} with {having}?",
         "I need something with {having}.{tail}"),
    ),
}  # fmt: skip
"""Sentences by kind of phrase. Test splits use the held-out half only."""

TAILS = Forms(
    (" I mean {ones}.", " Only {ones}, please.", " I would like {ones}."),
    (" Please mark only {ones}.", " I would like only {ones}."),
)
