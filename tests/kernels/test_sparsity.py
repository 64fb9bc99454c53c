from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gossamer.kernels.errors import ConfigError, MismatchError
from gossamer.kernels.sparsity import (
    Schedule,
    Scope,
    SparseOptimizer,
    SparsityConfig,
    exchange,
    select_top,
)

SCOPES: list[Scope] = ["row", "global"]
GROWTH = ["accumulated", "last", "random"]
SHAPE = (7, 23)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_mask(nnz: int, scope: Scope, chance: torch.Generator) -> Tensor:
    return select_top(
        torch.rand(SHAPE, generator=chance), nnz * (1 if scope == "row" else SHAPE[0]), scope=scope
    )


def start(
    config: SparsityConfig, *, n_steps: int = 40, seed: int = 3, optimizer: str = "adam"
) -> tuple[torch.nn.Parameter, SparseOptimizer]:
    table = torch.nn.Parameter(torch.randn(SHAPE, generator=generator(seed)))
    made: torch.optim.Optimizer
    if optimizer == "adam":
        made = torch.optim.Adam([table], lr=0.1, fused=True)
    elif optimizer == "adamw":
        made = torch.optim.AdamW([table], lr=0.1, weight_decay=0.1)
    else:
        made = torch.optim.SGD([table], lr=0.1, momentum=0.9)
    return table, SparseOptimizer(made, {"table": table}, config, n_steps=n_steps, seed=seed)


def learn(table: torch.nn.Parameter, sparse: SparseOptimizer, steps: Iterable[int]) -> Iterator[int]:
    """Steps on a quadratic whose target changes with the step, so that gradients never vanish."""
    for step in steps:
        target = torch.randn(SHAPE, generator=generator(1000 + step))
        table.grad = (table - target).detach()
        sparse.step()
        yield step


def counts(mask: Tensor, scope: Scope) -> list[int]:
    return mask.sum(1).tolist() if scope == "row" else [int(mask.sum())]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("grow", GROWTH)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_budget_is_the_same_at_every_step(scope: Scope, grow: Any, optimizer: str) -> None:
    config = SparsityConfig(nnz=5, scope=scope, grow=grow, n_updates=20)
    table, sparse = start(config, optimizer=optimizer)
    budget = [5] * SHAPE[0] if scope == "row" else [5 * SHAPE[0]]
    assert counts(sparse.masks["table"], scope) == budget
    seen = [sparse.masks["table"].clone()]
    for _ in learn(table, sparse, range(40)):
        mask = sparse.masks["table"]
        assert counts(mask, scope) == budget
        assert not table.detach()[~mask].any()
        seen.append(mask.clone())
    assert len({tuple(mask.flatten().tolist()) for mask in seen}) > 8, "the mask must move"


@given(seed=st.integers(0, 10_000), n=st.integers(0, 6), scope=st.sampled_from(SCOPES))
@settings(max_examples=60, deadline=None)
def test_an_exchange_keeps_the_count_whatever_the_ties(seed: int, n: int, scope: Scope) -> None:
    chance = generator(seed)
    mask = random_mask(6, scope, chance)
    weight = torch.randint(-1, 2, SHAPE, generator=chance).float() * mask  # many equal magnitudes, and zeros
    growth = torch.randint(0, 2, SHAPE, generator=chance).float()
    new = exchange(weight, mask, growth, n, scope=scope)
    assert counts(new, scope) == counts(mask, scope)
    assert int((mask & ~new).sum()) <= (n * SHAPE[0] if scope == "row" else n)


def test_exchange_drops_the_smallest_and_grows_the_largest() -> None:
    weight = torch.tensor([[3.0, -1.0, 0.0, 0.0, 2.0]])
    mask = torch.tensor([[True, True, False, False, True]])
    growth = torch.tensor([[0.0, 0.5, 0.1, 0.9, 0.0]])
    assert exchange(weight, mask, growth, 1, scope="row").tolist() == [[True, False, False, True, True]]
    growth[0, 3] = 0.2  # the dropped one now has the largest gradient, and comes back
    assert torch.equal(exchange(weight, mask, growth, 1, scope="row"), mask)


def test_a_global_budget_moves_between_rows_and_a_row_budget_does_not() -> None:
    growth = torch.zeros(SHAPE)
    growth[0] = 1.0
    for scope in SCOPES:
        mask = random_mask(5, scope, generator())
        new = exchange(torch.ones(SHAPE) * mask, mask, growth, 3, scope=scope)
        assert (int(new[0].sum()) > int(mask[0].sum())) == (scope == "global")


def test_select_top_counts_ties_exactly() -> None:
    assert select_top(torch.ones(4, 9), 3, scope="row").sum(1).tolist() == [3] * 4
    assert int(select_top(torch.ones(4, 9), 10, scope="global").sum()) == 10
    assert not select_top(torch.ones(4, 9), 0, scope="row").any()


def test_new_weights_start_at_zero_with_empty_optimiser_state() -> None:
    table, sparse = start(SparsityConfig(nnz=5, n_updates=10))
    before = sparse.masks["table"].clone()
    changes = 0
    for _ in learn(table, sparse, range(30)):
        mask = sparse.masks["table"].clone()
        new = mask & ~before
        if new.any():
            changes += 1
            assert not table.detach()[new].any()
            for slot in ("exp_avg", "exp_avg_sq"):
                assert not sparse.optimizer.state[table][slot][new | ~mask].any()
        before = mask
    assert changes > 3


@pytest.mark.parametrize("grow", ["accumulated", "last"])
def test_a_row_without_gradients_keeps_its_places(grow: Any) -> None:
    table, sparse = start(SparsityConfig(nnz=5, n_updates=10, grow=grow))
    first = sparse.masks["table"].clone()
    for step in range(30):
        table.grad = torch.randn(SHAPE, generator=generator(step))
        table.grad[2] = 0
        sparse.step()
    changed = (sparse.masks["table"] != first).any(1)
    assert not changed[2]
    assert changed.sum() == SHAPE[0] - 1


def test_masks_do_not_change_in_the_last_quarter_and_static_ones_never() -> None:
    table, sparse = start(SparsityConfig(nnz=5, n_updates=30))
    for step in learn(table, sparse, range(40)):
        if step == 29:
            frozen = sparse.masks["table"].clone()
    assert torch.equal(sparse.masks["table"], frozen)
    table, sparse = start(SparsityConfig(nnz=5, n_updates=0))
    first = sparse.masks["table"].clone()
    list(learn(table, sparse, range(40)))
    assert torch.equal(sparse.masks["table"], first)


@pytest.mark.parametrize(("n_steps", "n_updates"), [(1000, 100), (97, 13), (40, 100), (4, 3)])
def test_the_schedule_updates_as_often_as_it_says_and_falls(n_steps: int, n_updates: int) -> None:
    schedule = Schedule(n_steps, SparsityConfig(n_updates=n_updates))
    numbers = [n for step in range(1, n_steps + 1) if (n := schedule.update_after(step)) is not None]
    assert len(numbers) == min(n_updates, schedule.last_step)
    assert numbers[-1] == n_updates
    assert numbers == sorted(set(numbers))
    rates = [schedule.rate(step) for step in range(schedule.last_step + 1)]
    assert rates[0] == 0.5
    assert rates[-1] == pytest.approx(0.005)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("grow", GROWTH)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_resumed_run_equals_one_that_was_not_stopped(scope: Scope, grow: Any) -> None:
    config = SparsityConfig(nnz=4, scope=scope, grow=grow, n_updates=13)
    table, sparse = start(config)
    list(learn(table, sparse, range(17)))
    again, resumed = start(config)
    tensors = {name: tensor.clone() for name, tensor in sparse.state_tensors().items()}
    resumed.load_state_tensors(tensors, n_done=17)
    again.data.copy_(table.data)
    resumed.optimizer.load_state_dict(deepcopy(sparse.optimizer.state_dict()))
    list(learn(table, sparse, range(17, 40)))
    list(learn(again, resumed, range(17, 40)))
    assert torch.equal(table, again)
    assert torch.equal(sparse.masks["table"], resumed.masks["table"])


def test_gradient_growth_finds_the_places_that_matter() -> None:
    """The target has 4 large entries a row; chance would find few of them, the gradient finds all."""
    where = random_mask(4, "row", generator(9))
    target = torch.where(where, torch.tensor(1.0), torch.tensor(0.05))
    table, sparse = start(SparsityConfig(nnz=4, n_updates=30), n_steps=200)
    for _ in range(200):
        table.grad = (table - target).detach()
        sparse.step()
    assert torch.equal(sparse.masks["table"], where)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="lower nnz or widen"):
        start(SparsityConfig(nnz=24))
    _, sparse = start(SparsityConfig(nnz=4))
    with pytest.raises(MismatchError, match="no mask for the table 'table'"):
        sparse.load_state_tensors({}, n_done=1)
    with pytest.raises(ValueError, match="nnzz"):
        SparsityConfig.model_validate({"nnzz": 3})
