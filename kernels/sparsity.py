"""Dynamic sparse training: tables that hold a fixed number of non-zeros from the first step to the last.

Four plain parts drive one wrapper around any PyTorch optimiser:

    Mask      which weights may be non-zero: k a row ("row"), or k x rows over the whole table ("global")
    Schedule  when masks change and what share of the weights is exchanged
    drop      the weights of smallest magnitude leave
    grow      the places of largest |gradient| enter, with weight 0 and empty optimiser state

The method is RigL (Evci et al. 2020, arXiv:1911.11134), which grows by gradient and clears optimiser state, as used
for recommenders by DSL (Wang et al., WSDM 2024), which takes the top-k over a whole table ("global"). Growing by the
gradient *accumulated* since the last exchange, not by the last batch's, follows SparseRec (arXiv:2411.12205): the last
batch knows only its own users and items. "row" is our default: rows of equal length, no empty rows.

Masks are kept beside dense tensors: what is saved is the stored model and its scoring, not memory while training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from gossamer.kernels.errors import ConfigError, MismatchError

Scope = Literal["row", "global"]


class SparsityConfig(BaseModel):
    """How a table is kept sparse while it learns.

    Attributes:
        nnz: non-zeros of each row ("row"), or on average a row ("global").
        scope: where the budget holds: in each row, or over the table as the DSL paper has it.
        n_updates: how often the mask changes; 0 keeps the first one ("static"). More search longer, but leave grown
            weights fewer steps in which to catch up: choose it on validation, as the 60 of `configs/imports.toml`.
        drop_start: share of the weights that the first update exchanges.
        drop_end: share that the last one exchanges; a cosine lies between.
        frozen: share of the run, at its end, in which masks no longer change.
        grow: what tells where to grow: |gradient| summed since the last update, |gradient| of the last step, or chance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nnz: int = Field(default=51, ge=1)
    scope: Scope = "row"
    n_updates: int = Field(default=100, ge=0)
    drop_start: float = Field(default=0.5, gt=0, le=1)
    drop_end: float = Field(default=0.005, ge=0, le=1)
    frozen: float = Field(default=0.25, ge=0, lt=1)
    grow: Literal["accumulated", "last", "random"] = "accumulated"


@dataclass(frozen=True)
class Schedule:
    """When masks change: `n_updates` times, evenly over the part of the run that is not frozen.

    Attributes:
        n_steps: length of the run in optimiser steps.
        config: rates, number of updates and frozen share.
    """

    n_steps: int
    config: SparsityConfig

    @property
    def last_step(self) -> int:
        """The step after which masks stay as they are."""
        return int(self.n_steps * (1 - self.config.frozen))

    def update_after(self, step: int) -> int | None:
        """Number (from 1) of the mask update that follows the given step (from 1), or None."""
        if not 1 <= step <= self.last_step:
            return None
        number = step * self.config.n_updates // self.last_step
        return number if number > (step - 1) * self.config.n_updates // self.last_step else None

    def rate(self, step: int) -> float:
        """Share of the weights that an update after this step exchanges; falls as a cosine."""
        config = self.config
        wave = 0.5 * (1 + math.cos(math.pi * min(step / max(self.last_step, 1), 1)))
        return config.drop_end + (config.drop_start - config.drop_end) * wave


def select_top(score: Tensor, n: int, *, scope: Scope) -> Tensor:
    """Marks the largest scores: exactly n in each row, or exactly n in all.

    The count is exact whatever the ties, which a comparison with a threshold would not give.

    Args:
        score: `[rows, width]`.
        n: how many, in each row ("row") or in all ("global").
        scope: "row" or "global".

    Returns:
        bool `[rows, width]`.
    """
    mask = torch.zeros(score.shape, dtype=torch.bool, device=score.device)
    if scope == "row":
        return mask.scatter_(1, score.topk(n, dim=1, sorted=False).indices, True)
    mask.view(-1)[score.reshape(-1).topk(n, sorted=False).indices] = True
    return mask


def exchange(weight: Tensor, mask: Tensor, growth: Tensor, n: int, *, scope: Scope) -> Tensor:
    """The next mask: the n weights of smallest magnitude leave, the n places of largest growth score enter.

    Any place that is not kept may enter, so a weight that was just dropped can come back (and keeps its value).

    Args:
        weight: `[rows, width]`; zero outside the mask.
        mask: bool `[rows, width]`, the present places.
        growth: `[rows, width]`, not negative; ties should be broken by the caller.
        n: how many leave and enter, in each row ("row") or in all ("global").
        scope: "row" or "global".

    Returns:
        bool `[rows, width]`, with as many places as `mask` (in each row, for "row").
    """
    held = int(mask[0].sum() if scope == "row" else mask.sum())
    kept = select_top(weight.abs().masked_fill(~mask, -1.0), held - n, scope=scope)
    return kept | select_top(growth.masked_fill(kept, -1.0), n, scope=scope)


class SparseOptimizer:
    """Wraps an optimiser so that tables keep a fixed number of non-zeros.

    Call `step()` where the optimiser's own would stand, once gradients are complete (summed over workers): gradients
    outside the mask are noted for growth and then removed, so weights and optimiser state stay zero there.
    Every choice follows from the weights, the gradients, the seed and the update's number: workers that
    hold the same gradients choose the same masks, and a run that was resumed goes on as one that was not.

    Args:
        optimizer: any optimiser whose per-weight state has the weight's shape (SGD, Adam, …); 0 must mean "fresh".
        tables: the parameters to keep sparse, `[rows, width]`, by name. They are masked at once, by magnitude: so
            tables of random weights get a random first mask, and tables with a better start keep the best of it.
        config: budget, scope, schedule and growth rule.
        n_steps: length of the run.
        seed: of random choices.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        tables: Mapping[str, torch.nn.Parameter],
        config: SparsityConfig,
        *,
        n_steps: int,
        seed: int,
    ) -> None:
        for name, table in tables.items():
            if table.ndim != 2 or table.shape[1] < config.nnz:
                raise ConfigError(
                    f"the table {name!r} has the shape {tuple(table.shape)}; expected rows at least {config.nnz} "
                    "wide: lower nnz or widen the table."
                )
        self.optimizer = optimizer
        self.tables = dict(tables)
        self.config = config
        self.schedule = Schedule(n_steps, config)
        self.n_done = 0
        self._seed = seed
        self._generator = torch.Generator()
        self.masks: dict[str, Tensor] = {}
        self._growth: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, table in self.tables.items():
                n = config.nnz if config.scope == "row" else config.nnz * table.shape[0]
                self.masks[name] = select_top(table.abs(), n, scope=config.scope)
                table.mul_(self.masks[name])
                if config.grow == "accumulated":
                    self._growth[name] = torch.zeros_like(table)

    @torch.no_grad()
    def step(self) -> None:
        """One optimiser step; where the schedule says so, a mask update after it."""
        self.n_done += 1
        update = self.schedule.update_after(self.n_done) if self.config.n_updates else None
        for name, table in self.tables.items():
            if table.grad is None:
                continue
            if self.n_done <= self.schedule.last_step and name in self._growth:
                self._growth[name].add_(table.grad.abs())
            elif update is not None and self.config.grow == "last":
                self._growth[name] = table.grad.abs()
            table.grad.mul_(self.masks[name])
        self.optimizer.step()
        if update is not None:
            for name in self.tables:
                self._update(name, update)
                if self.config.grow == "last":
                    self._growth.pop(name, None)

    def _update(self, name: str, number: int) -> None:
        table, old = self.tables[name], self.masks[name]
        budget = self.config.nnz if self.config.scope == "row" else self.config.nnz * table.shape[0]
        n = min(budget, round(self.schedule.rate(self.n_done) * budget))
        # Far below any real gradient, so chance decides only among places without one.
        growth = torch.rand(table.shape, generator=self._chance(name, number)).to(table.device).mul_(1e-30)
        if name in self._growth:
            growth.add_(self._growth[name])
            self._growth[name].zero_()
        new = exchange(table, old, growth, n, scope=self.config.scope)
        if self.config.scope == "row" and name in self._growth:
            # A row that met no gradient since the last update (a user in no batch) would grow by chance: it waits.
            new = torch.where(growth.amax(1, keepdim=True) > 1e-30, new, old)
        stays = new & old
        for slot in self.optimizer.state[table].values():
            if isinstance(slot, Tensor) and slot.shape == table.shape:
                slot.mul_(stays)
        table.mul_(stays)
        self.masks[name] = new

    def _chance(self, name: str, number: int) -> torch.Generator:
        place = sorted(self.tables).index(name)
        return self._generator.manual_seed((self._seed * 1_000_003 + number) * 97 + place)

    # -- checkpoints ----------------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        """Masks (a bit a weight) and growth scores, for safetensors; the optimiser's own state is apart."""
        tensors = {f"mask.{name}": _pack(mask) for name, mask in self.masks.items()}
        tensors |= {f"growth.{name}": growth for name, growth in self._growth.items()}
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor], *, n_done: int) -> None:
        """Goes on from `state_tensors()` after `n_done` steps.

        Raises:
            MismatchError: if a mask is missing or belongs to a table of another shape.
        """
        for name, table in self.tables.items():
            packed = tensors.get(f"mask.{name}")
            if packed is None or packed.numel() != -(-table.numel() // 8):
                raise MismatchError(
                    f"the checkpoint has no mask for the table {name!r} of {tuple(table.shape)}."
                )
            self.masks[name] = _unpack(packed, table.shape).to(table.device)
            if name in self._growth:
                self._growth[name].copy_(tensors[f"growth.{name}"])
        self.n_done = n_done


_BITS = (1, 2, 4, 8, 16, 32, 64, 128)


def _pack(mask: Tensor) -> Tensor:
    flat = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8))
    return (flat.view(-1, 8) * torch.tensor(_BITS, dtype=torch.uint8, device=mask.device)).sum(
        1, dtype=torch.uint8
    )


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    bits = packed[:, None] & torch.tensor(_BITS, dtype=torch.uint8, device=packed.device)
    return (bits != 0).view(-1)[: shape.numel()].view(shape)
