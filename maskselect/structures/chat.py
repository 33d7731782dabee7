"""`ChatIds`: what the chat template of a language model puts around what a user gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatIds:
    """Token ids of a template, in the order in which they are read; any may be empty.

        begin [image tokens] image_end [candidates] after [prompt] closing [answer]

    begin: the system's text, and what opens the user's turn and the image.
    image_end: right behind the image.  after: between candidates and prompt.
    closing: behind the prompt, up to where the answer begins.
    before_caption: behind candidates, in the place of all that follows, where a caption is to follow.
    """

    begin: list[int]
    image_end: list[int]
    after: list[int]
    closing: list[int]
    before_caption: list[int]
