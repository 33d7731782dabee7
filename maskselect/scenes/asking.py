"""Numbers of prompts for each scene of the generated data sets."""

from typing import NamedTuple


class PromptsPerScene(NamedTuple):
    """Numbers of prompts for a generated scene. A reasoning prompt comes with a naming prompt, a twin with its twin."""

    plain: int = 0
    reasoning: int = 0
    unknown: int = 0
    twins: int = 0

    @property
    def total(self) -> int:
        """Number of all prompts."""
        return self.plain + 2 * self.reasoning + self.unknown + 2 * self.twins


GENERATED = {
    "scenes": PromptsPerScene(plain=3),
    "scenes-reasoning": PromptsPerScene(reasoning=3),
    "scenes-unknown": PromptsPerScene(unknown=3),
    "scenes-twins": PromptsPerScene(twins=3),
}
"""Data sets that are generated on demand. With the same split and seed they have the same images."""
