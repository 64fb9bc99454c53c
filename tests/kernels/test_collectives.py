"""One worker and two give the same loss and the same gradient."""

from __future__ import annotations

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from gossamer.kernels.collectives import World


def _loss(world: World, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    local = inputs[world.share(len(inputs))] @ weight
    rows = world.gather_rows(local, len(inputs))
    return (rows.mean(0) ** 2).sum() + torch.logsumexp(rows @ rows.T, 1).mean()  # not linear in the batch


def _work(rank: int, file: str, weight: torch.Tensor, inputs: torch.Tensor, expected: torch.Tensor) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    world = World.current()
    weight = weight.clone().requires_grad_()
    unused = torch.zeros(3, requires_grad=True)
    _loss(world, weight, inputs).backward()  # type: ignore[no-untyped-call]
    world.sum_gradients([weight, unused])
    torch.testing.assert_close(weight.grad, expected)
    assert unused.grad is not None
    distributed.destroy_process_group()


def test_two_workers_equal_one(tmp_path: object) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(4, 3), torch.randn(7, 4)  # seven rows: unequal shares
    single = weight.clone().requires_grad_()
    _loss(World(), single, inputs).backward()  # type: ignore[no-untyped-call]
    spawn(_work, (f"{tmp_path}/rendezvous", weight, inputs, single.grad), nprocs=2)  # type: ignore[no-untyped-call]


def test_shares_cover_everything_once() -> None:
    for n in range(12):
        for size in range(1, 5):
            rows = [row for rank in range(size) for row in range(n)[World(rank, size).share(n)]]
            assert rows == list(range(n))
