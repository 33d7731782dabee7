"""Base class of the learners of compact parts, which are small and are trained on one device or with DDP."""

from pathlib import Path

from torch import Tensor, nn

from maskselect.backends.checkpoints import check_fit


class CompactLearner(nn.Module):
    """A part with its objective. A subclass defines `name`, `loss`, `validate` and `learned_state`."""

    name: str
    runs_every_part = False

    def learned_state(self) -> dict[str, Tensor]:
        """All tensors of the part's checkpoint, by name."""
        raise NotImplementedError

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load the tensors of a `learned_state`.

        Args:
            tensors: by name.
            origin: their file, for messages.

        Raises:
            ValueError: for missing or unknown tensors, or tensors of a wrong shape.
        """
        state = self.learned_state()
        check_fit(state, tensors, str(origin), f"{type(self).__name__} as configured")
        for name, tensor in state.items():
            tensor.data.copy_(tensors[name])

    def blocks(self) -> list[nn.Module]:
        """Not available.

        Raises:
            ValueError: always, because a compact part cannot be sharded.
        """
        raise ValueError(f"{type(self).__name__} is small and cannot be sharded; use ddp")
