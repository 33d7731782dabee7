"""Muon: momentum with orthogonalised updates for weights of two or more dimensions; AdamW for all others.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ (the update) and Liu et al. 2025, arXiv:2502.16982 (the
scale with which both parts share one learning rate). `torch.optim.Muon` supports only matrices; the compact ConvNet has
kernels, too, which are flattened to (out, in * height * width).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic Newton-Schulz coefficients of the reference


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximates U V^T of the singular value decomposition; singular values become 0.7 to 1.2.

    Args:
        matrices: (..., R, C) float.
        steps: Newton-Schulz iterations.

    Returns:
        (..., R, C), bfloat16 on a GPU, float32 on a CPU, because most CPUs emulate bfloat16.
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

    Args:
        params: parameters, or groups of them. Those with two or more dimensions get the orthogonal update unless their
            group has `muon=False` (use that for heads and embeddings); the others get AdamW's.
        lr: learning rate of both updates.
        momentum: of the orthogonal update (Nesterov).
        betas: of the AdamW update.
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
        """Update every parameter that has a gradient, and return the value of the closure, if there is one."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[torch.Size, torch.device], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim > 1:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if parameter.ndim > 1 and group["muon"]:
                    by_shape.setdefault((parameter.shape, parameter.device), []).append(parameter)
                else:
                    self._adam(parameter, parameter.grad, group)
            for parameters in by_shape.values():
                self._muon(parameters, group)
        return value

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of one shape in one batch, which is faster than one by one."""
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
    """Parameter groups of the trainable parameters: kernels and matrices for Muon, the others for AdamW.

    Args:
        module: the module to train.
        adam: parameters whose names contain one of these are AdamW's: embeddings and output layers.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    kernels = [p for name, p in named if p.ndim > 1 and not any(part in name for part in adam)]
    by_muon = {id(p) for p in kernels}
    return [{"params": kernels}, {"params": [p for _, p in named if id(p) not in by_muon], "muon": False}]
