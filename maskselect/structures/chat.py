"""`ChatIds`: the tokens of a language model's chat template around the input."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatIds:
    """Token ids of a template in reading order; any may be empty.

        begin [image tokens] image_end [candidates] after [prompt] closing [answer]

    Attributes:
        begin: the system text, and the start of the user's turn and of the image.
        image_end: after the image.
        after: between candidates and prompt.
        closing: between prompt and answer.
        before_caption: after the candidates, in place of all that follows, if a caption follows.
    """

    begin: list[int]
    image_end: list[int]
    after: list[int]
    closing: list[int]
    before_caption: list[int]
