"""How many prompts of each sort the generated datasets ask about a scene."""

from typing import NamedTuple


class PromptsPerScene(NamedTuple):
    """How many prompts of each sort there are about a generated scene; each reasoning prompt brings one by name."""

    plain: int = 0
    reasoning: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.plain + 2 * self.reasoning + self.unknown


GENERATED = {
    "scenes": PromptsPerScene(plain=3),
    "scenes-reasoning": PromptsPerScene(reasoning=3),
    "scenes-unknown": PromptsPerScene(unknown=3),
}
"""Data sets that are generated on the spot. Of one split and seed all are about the same pictures."""
