"""Collectives for training on several workers: numbers in, numbers out.

The rule that makes one worker and n workers agree: every worker gathers the vectors of the whole batch and computes
the whole batch's loss; the gather's backward pass keeps only the worker's own slice; parameter gradients are then
*summed* over workers. No average is taken anywhere, so a loss that is not linear in the batch (InfoNCE, the square in
FLOPS) is the same function whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class World:
    """This worker's place among all.

    Attributes:
        rank: number of this worker, from 0.
        size: how many workers there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world of the initialised process group, or one of a single worker."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    def share(self, n: int) -> slice:
        """This worker's contiguous part of n rows; parts differ in length by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def gather_rows(self, local: Tensor, n: int) -> Tensor:
        """Stack all workers' rows in rank order; the gradient of this worker's rows flows back.

        Args:
            local: `[len(share(n)), ...]`, this worker's rows.
            n: number of rows of all workers together.

        Returns:
            `[n, ...]`; equal on every worker.
        """
        if self.size == 1:
            return local
        gathered: Tensor = _GatherRows.apply(local, self, n)  # type: ignore[no-untyped-call] # torch ships none
        return gathered

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over workers; a missing one counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, world: World, n: int) -> Tensor:
        ctx.own = world.share(n)
        longest = -(-n // world.size)
        padded = local.new_zeros(longest, *local.shape[1:])
        padded[: local.shape[0]] = local
        parts = [torch.empty_like(padded) for _ in range(world.size)]
        distributed.all_gather(parts, padded)
        shares = [World(rank, world.size).share(n) for rank in range(world.size)]
        return torch.cat([part[: s.stop - s.start] for part, s in zip(parts, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own], None, None
