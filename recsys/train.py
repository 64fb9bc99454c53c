"""Training of a factor model, dense or sparse: plain steps in one process, or the same steps on every worker.

Batch t is a function of the seed and t alone. Every worker takes its share of a batch's users, the losses of all
are gathered and gradients summed, so one worker and several follow the same path, up to the order of float sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from gossamer.kernels.collectives import World
from gossamer.kernels.errors import InputError, TrainingError
from gossamer.kernels.sparsity import SparseOptimizer, SparsityConfig
from gossamer.recsys.model import FactorModel, Factors, graph_start, random_start, softmax_loss

if TYPE_CHECKING:
    from scipy import sparse

    from gossamer.index.runs import RunFolder
    from gossamer.recsys.interactions import Interactions


class RecsysTrainConfig(BaseModel):
    """Everything that decides a training run.

    Attributes:
        width: columns H of both tables.
        sparsity: budget and schedule of the non-zeros; None, as without that table in a preset, is dense.
        start_hops: how far first weights travel along the interactions before training (and before the first
            mask is taken); see `graph_start`. 0 leaves them random.
        temperature: what cosines are divided by before the softmax.
        n_epochs: passes over the users.
        batch_users: users of one step, over all workers.
        n_sampled: items drawn a step for the softmax's denominator, beside the batch's own; None takes all items.
        learning_rate: of Adam, after the warm-up.
        warmup: share of the run in which the learning rate rises.
        hold: share of the run after which it falls, as a cosine. Weights that are grown late start from 0 and need a
            learning rate to catch up, or they are dropped again before they count.
        weight_power: a user with n items weighs n to this power: 1 counts interactions, 0 counts users.
        matmul: in what scores are multiplied while training: "bfloat16" is five times as fast where the processor has
            it, "float32" is needed for results that do not depend on the number of workers; "auto" chooses by
            the processor.
        seed: of the first weights, batches and samples.
        checkpoint_every: steps between checkpoints; 0 writes one at the end only.
        log_every: steps between logged lines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=512, ge=1)
    sparsity: SparsityConfig | None = None
    start_hops: int = Field(default=2, ge=0)
    temperature: float = Field(default=0.1, gt=0)
    n_epochs: int = Field(default=20, ge=1)
    batch_users: int = Field(default=1024, ge=1)
    n_sampled: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=0.02, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    hold: float = Field(default=0.5, ge=0, lt=1)
    weight_power: float = Field(default=1.0, ge=0)
    matmul: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1)

    def n_steps(self, n_active_users: int) -> int:
        """Optimiser steps of the whole run."""
        return self.n_epochs * math.ceil(n_active_users / self.batch_users)


class _Batch(NamedTuple):
    """This worker's part of one batch."""

    users: Tensor  # [B] rows of the user table
    row: Tensor  # [P] position in `users` of each positive
    column: Tensor  # [P] its column among the scored items
    n_positive: Tensor  # [B]
    items: Tensor | None  # [C] the scored items; None for all
    log_weight: Tensor | None  # [C]
    n_users: int  # of the whole batch
    weight: float  # of the whole batch


class _Batches:
    """The batches of a run; `batch(t)` needs nothing but the seed and t."""

    def __init__(self, matrix: sparse.csr_array, config: RecsysTrainConfig, world: World) -> None:
        self.indptr, self.indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
        self.lengths = np.diff(self.indptr)
        self.active = np.flatnonzero(self.lengths)
        self.n_items = int(matrix.shape[1])
        self.config, self.world = config, world
        if not self.active.size:
            raise InputError("there are no interactions to learn from; check the log and its filters.")
        self.n_steps = config.n_steps(self.active.size)

    def batch(self, step: int) -> _Batch:
        per_epoch = self.n_steps // self.config.n_epochs
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(self.active.size)
        users = self.active[order[at * self.config.batch_users :][: self.config.batch_users]]
        weight = float((self.lengths[users] ** self.config.weight_power).sum())
        items_C, log_weight_C = self._sample(users, step)
        own = users[self.world.share(users.size)]
        lengths, items = self.lengths[own], self._items_of(own)
        columns = items if items_C is None else np.searchsorted(items_C, items)
        return _Batch(
            torch.from_numpy(own),
            torch.from_numpy(np.repeat(np.arange(own.size), lengths)),
            torch.from_numpy(columns),
            torch.from_numpy(lengths.astype(np.float32)),
            None if items_C is None else torch.from_numpy(items_C),
            None if log_weight_C is None else torch.from_numpy(log_weight_C),
            users.size,
            weight,
        )

    def _items_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths = self.lengths[users]
        starts = np.repeat(self.indptr[users] - (np.cumsum(lengths) - lengths), lengths)
        items: NDArray[np.int64] = self.indices[starts + np.arange(starts.size)]
        return items

    def _sample(
        self, users: NDArray[np.int64], step: int
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.float32] | None]:
        """The batch's own items and a uniform sample of the others, ascending, with the sampled ones' log weight."""
        n = self.config.n_sampled
        if n is None:
            return None, None
        own = np.unique(self._items_of(users))
        others = np.setdiff1d(np.arange(self.n_items), own, assume_unique=True)
        if n >= others.size:
            return None, None
        drawn = np.random.default_rng((self.config.seed, step, 1)).choice(others, n, replace=False)
        items = np.concatenate([own, drawn])
        weight = np.where(np.arange(items.size) < own.size, 0.0, math.log(others.size / n)).astype(np.float32)
        order = np.argsort(items)
        return items[order], weight[order]


def train(
    config: RecsysTrainConfig,
    interactions: Interactions,
    run: RunFolder | None = None,
    world: World | None = None,
    *,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
) -> Factors:
    """Trains a factor model on interactions.

    Args:
        config: what to train.
        interactions: the log; every id of it gets a row, with or without interactions.
        run: where metrics and checkpoints go; training goes on from its last checkpoint. None keeps nothing.
        world: this worker among all; None takes the current process group, or a world of one.
        on_metrics: called with each line that is logged (`step`, `loss`, `learning_rate`), with or without a run.

    Returns:
        The trained factors; the same on every worker.

    Raises:
        InputError: if the log is empty.
        TrainingError: if the loss is not finite.
    """
    world = World.current() if world is None else world
    generator = torch.Generator().manual_seed(config.seed)
    matrix = interactions.matrix()
    batches = _Batches(matrix, config, world)
    if config.start_hops:
        model = FactorModel(*graph_start(matrix, config.width, generator, n_hops=config.start_hops))
    else:
        model = FactorModel(
            *random_start(interactions.n_users, interactions.n_items, config.width, generator)
        )
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    sparse_adam = None
    if config.sparsity is not None:
        sparse_adam = SparseOptimizer(
            adam, model.tables(), config.sparsity, n_steps=batches.n_steps, seed=config.seed
        )
    done = _resume(run, model, adam, sparse_adam)
    for step in range(done, batches.n_steps):
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * learning_rate_at(
                step, batches.n_steps, warmup=config.warmup, hold=config.hold
            )
        loss = _step(model, adam, sparse_adam, batches.batch(step), config, world=world)
        last = step + 1 == batches.n_steps
        if last or (step + 1) % config.log_every == 0:
            values = {"loss": loss, "learning_rate": adam.param_groups[0]["lr"]}
            if run is not None and world.rank == 0:
                run.log(step + 1, **values)
            if on_metrics is not None:
                on_metrics({"step": step + 1, **values})
        due = config.checkpoint_every and (step + 1) % config.checkpoint_every == 0
        if run is not None and world.rank == 0 and (last or due):
            _save(run, step + 1, model, adam, sparse_adam)
    return model.factors()


def learning_rate_at(step: int, n_steps: int, *, warmup: float, hold: float) -> float:
    """Share of the learning rate in a step (from 0): a linear rise, a level, then half a cosine down to 2%."""
    rise = max(1, round(warmup * n_steps))
    fall = max(0.0, (step / n_steps - hold) / (1 - hold))
    return min(1.0, (step + 1) / rise) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


def _dtype(config: RecsysTrainConfig) -> torch.dtype:
    fast = config.matmul == "bfloat16" or (
        config.matmul == "auto" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
    return torch.bfloat16 if fast else torch.float32


def _step(
    model: FactorModel,
    adam: torch.optim.Optimizer,
    sparse_adam: SparseOptimizer | None,
    batch: _Batch,
    config: RecsysTrainConfig,
    *,
    world: World,
) -> float:
    logits_BC = model(batch.users, batch.items, dtype=_dtype(config)) / config.temperature
    loss_B = softmax_loss(logits_BC, batch.row, batch.column, batch.n_positive, batch.log_weight)
    weighted_B = loss_B * batch.n_positive**config.weight_power
    loss = world.gather_rows(weighted_B, batch.n_users).sum() / batch.weight
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss became {value}; lower the learning rate or raise the temperature.")
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    world.sum_gradients(model.parameters())
    (sparse_adam or adam).step()
    return value


def _save(
    run: RunFolder,
    step: int,
    model: FactorModel,
    adam: torch.optim.Optimizer,
    sparse_adam: SparseOptimizer | None,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, table in model.tables().items():
        tensors[f"table.{name}"] = table
        tensors |= {f"adam.{slot}.{name}": value for slot, value in adam.state[table].items()}
    if sparse_adam is not None:
        tensors |= sparse_adam.state_tensors()
    run.save_checkpoint(step, tensors)


def _resume(
    run: RunFolder | None,
    model: FactorModel,
    adam: torch.optim.Optimizer,
    sparse_adam: SparseOptimizer | None,
) -> int:
    """Loads the last checkpoint into the parts; returns the number of steps done."""
    found = run.load_checkpoint() if run is not None else None
    if found is None:
        return 0
    tensors, state = found
    for name, table in model.tables().items():
        with torch.no_grad():
            table.copy_(tensors[f"table.{name}"])
        adam.state[table] = {
            slot: tensors[f"adam.{slot}.{name}"] for slot in ("step", "exp_avg", "exp_avg_sq")
        }
    if sparse_adam is not None:
        sparse_adam.load_state_tensors(tensors, n_done=int(state["step"]))
    return int(state["step"])
