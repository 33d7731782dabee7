"""What the learners of compact parts share: they are small, so they are trained whole on one device or with DDP."""

from pathlib import Path

from torch import Tensor, nn

from maskselect.backends.checkpoints import check_fit


class CompactLearner(nn.Module):
    """A part with its objective. A subclass gives `name`, `loss`, `validate` and `learned_state`."""

    name: str
    runs_every_part = False

    def learned_state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint of the part holds."""
        raise NotImplementedError

    def load_learned(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Load what `learned_state` gave. Raises ValueError for missing, unknown or misshapen tensors of `origin`."""
        own = self.learned_state()
        check_fit(own, tensors, str(origin), f"{type(self).__name__} as configured")
        for name, tensor in own.items():
            tensor.data.copy_(tensors[name])

    def blocks(self) -> list[nn.Module]:
        """Raises ValueError: it cannot be sharded."""
        raise ValueError(f"{type(self).__name__} is small and cannot be sharded; use ddp")
