"""Muon for the matrices of the layers, AdamW for embeddings, head and norms.

Muon (Jordan et al. 2024) orthogonalises the momentum of each matrix with a quintic Newton-Schulz
iteration. Matrices of one shape are stacked: a step is a few batched products whatever the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Peak learning rates and their schedule: warm-up, hold, linear decay to zero."""

    matrix_lr: float = 0.015
    vector_lr: float = 3e-3
    weight_decay: float = 0.03
    momentum: float = 0.95
    warmup_steps: int = 150
    decay_share: float = 0.6

    def scale(self, step: int, num_steps: int) -> float:
        """The factor on both learning rates at a step."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return warm * min(1.0, (num_steps - step) / (self.decay_share * num_steps))


def orthogonalize(stack: Tensor, num_iterations: int = 5) -> Tensor:
    """Push the singular values of each matrix of [n, rows, columns] towards one.

    In bfloat16 on a GPU; in float32 on a CPU, where bfloat16 products are slow.
    """
    wide = stack.shape[1] <= stack.shape[2]
    x = stack if wide else stack.mT
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(stack.dtype)


class Optimizer:
    """Both optimisers behind one step."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        named = list(model.named_parameters())
        self._stacks: dict[torch.Size, list[nn.Parameter]] = {}
        for name, weight in named:
            if _is_matrix(name):
                self._stacks.setdefault(weight.shape, []).append(weight)
        self._momenta = {
            shape: torch.zeros(len(weights), *shape, device=weights[0].device)
            for shape, weights in self._stacks.items()
        }
        rest = [weight for name, weight in named if not _is_matrix(name)]
        fused = rest[0].is_cuda
        self._adam = torch.optim.AdamW(
            rest, lr=config.vector_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=fused
        )

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Apply the gradients with both learning rates scaled, and clear them."""
        for group in self._adam.param_groups:
            group["lr"] = self.config.vector_lr * scale
        self._adam.step()
        for shape, weights in self._stacks.items():
            self._step_stack(weights, self._momenta[shape], self.config.matrix_lr * scale)
            for weight in weights:
                weight.grad = None
        self._adam.zero_grad(set_to_none=True)

    def _step_stack(self, weights: list[nn.Parameter], momentum: Tensor, lr: float) -> None:
        """Muon with Nesterov momentum and decoupled weight decay on matrices of one shape."""
        beta = self.config.momentum
        grads = torch.stack([w.grad for w in weights if w.grad is not None])
        momentum.lerp_(grads, 1 - beta)
        update = orthogonalize(grads.lerp_(momentum, beta))
        rows, columns = weights[0].shape
        update *= -lr * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(list[Tensor](weights), 1 - lr * self.config.weight_decay)
        torch._foreach_add_(list[Tensor](weights), list[Tensor](update.unbind()))


def _is_matrix(name: str) -> bool:
    """Weights inside the layers that are matrices."""
    return name.endswith("_proj.weight")
