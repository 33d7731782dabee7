"""Two processes train a tiny system under DeepSpeed on the CPU.

`python -m tests.training.deepspeed_run OUTPUT STAGE WHAT`. WHAT: "steps", plain steps of a fixed batch, in single
precision; or a name of `sharded_run.VALIDATED`.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when DeepSpeed is imported

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy

from maskselect.backends.configs import read_configs
from tests.training.sharded_run import train, validate

OVERLAYS = Path(__file__).parents[2] / "configs" / "paper" / "overlays"


class OnCpu(DeepSpeedStrategy):
    """Lightning's strategy without its refusal of whatever is not CUDA."""

    def __init__(self, stage: int, autocast: bool) -> None:
        config = read_configs([OVERLAYS / f"zero{stage}.yaml"])["trainer"]["strategy"]["init_args"]["config"]
        config["torch_autocast"]["enabled"] = autocast
        super().__init__(config=config, process_group_backend="gloo")

    @property
    def root_device(self) -> torch.device:
        """DeepSpeed asks for its number."""
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        """As that of any strategy of several processes."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Without looking at the numbers of GPUs."""
        self.set_world_ranks()
        self._init_deepspeed_distributed()


if __name__ == "__main__":
    output, stage, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if what != "steps":
        validate(output, what, OnCpu(stage, autocast=True), "32-true")
        sys.exit()
    train(output / "one", False, 1, 2, strategy=OnCpu(stage, autocast=False))
    train(output / "two", False, 4, 2, stop=2, strategy=OnCpu(stage, autocast=False))
    train(output / "four", False, 4, 2, strategy=OnCpu(stage, autocast=False))
    train(output / "resumed", False, 4, 2, output / "two" / "last.ckpt", strategy=OnCpu(stage, autocast=False))
