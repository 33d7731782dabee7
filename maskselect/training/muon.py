"""Muon: momentum whose update is made orthogonal, for weights of two or more dimensions; AdamW for all others.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ (the update) and Liu et al. 2025, arXiv:2502.16982 (the
scale that lets one learning rate serve both parts). PyTorch's own `torch.optim.Muon` takes matrices only; the compact
ConvNet needs kernels as well, which are flattened to (out, in * height * width).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic Newton-Schulz coefficients of the reference


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """About U V^T of the singular value decomposition: (..., R, C) float to the same, singular values 0.7 to 1.2.

    Computed and given in bfloat16 on a GPU, in float32 on a CPU, where most know bfloat16 only by emulation.
    """
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """One optimiser for a whole network.

    params: parameters, or groups of them. Those with two or more dimensions get the orthogonal update unless their
        group has `muon=False` (use that for heads and embeddings); the others get AdamW's.
    lr: for both parts.
    momentum: of the orthogonal update (Nesterov). betas: of the AdamW update.
    weight_decay: decoupled; not applied to vectors.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.05,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "muon": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns the closure's value, if one is given."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim > 1:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim > 1 and group["muon"]:
                    alike.setdefault((parameter.shape, parameter.device), []).append(parameter)
                else:
                    self._adam(parameter, parameter.grad, group)
            for parameters in alike.values():
                self._muon(parameters, group)
        return value

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of one shape together: small matrices one by one would mostly wait for each other."""
        flat = torch.stack([self._direction(p, group).flatten(1) for p in parameters])
        size = 0.2 * max(flat.shape[1:]) ** 0.5  # root mean square of an AdamW step
        for parameter, update in zip(parameters, orthogonalise(flat), strict=True):
            parameter.add_(update.reshape(parameter.shape).to(parameter.dtype), alpha=-group["lr"] * size)

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with (Nesterov) momentum."""
        state, gradient = self.state[parameter], cast(Tensor, parameter.grad)
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(state["momentum"], group["momentum"])

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["first"].lerp_(gradient, 1 - beta1)
        state["second"].lerp_(gradient.square(), 1 - beta2)
        bias1, bias2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        parameter.addcdiv_(state["first"] / bias1, (state["second"] / bias2).sqrt().add_(1e-8), value=-group["lr"])


def muon_groups(module: nn.Module, adam: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Parameter groups of what trains in a module: kernels and matrices by Muon, the rest by AdamW.

    adam: parts of names whose parameters are AdamW's whatever their shape: embeddings and output layers.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    kernels = [p for name, p in named if p.ndim > 1 and not any(part in name for part in adam)]
    chosen = {id(p) for p in kernels}
    return [{"params": kernels}, {"params": [p for _, p in named if id(p) not in chosen], "muon": False}]
