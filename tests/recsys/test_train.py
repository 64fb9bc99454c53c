from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer.index.presets import load_preset
from gossamer.index.runs import RunFolder
from gossamer.kernels.errors import InputError, TrainingError
from gossamer.kernels.sparsity import SparsityConfig
from gossamer.recsys import Interactions, Recommender, RecsysTrainConfig
from gossamer.recsys.dataset import LogConfig
from gossamer.recsys.model import FactorModel, Factors, equal_width, random_start, softmax_loss, stored_bytes
from gossamer.recsys.train import learning_rate_at, train


def blocks(n_users: int = 60, n_items: int = 40, n_blocks: int = 4, seed: int = 0) -> Interactions:
    """Users take most items of their own block and none of others."""
    chance = np.random.default_rng(seed)
    take = (np.arange(n_users)[:, None] % n_blocks == np.arange(n_items) % n_blocks) & (
        chance.random((n_users, n_items)) < 0.7
    )
    users, items = np.nonzero(take)
    return Interactions.from_rows(users, items, n_users=n_users, n_items=n_items)


def config(**changes: object) -> RecsysTrainConfig:
    usual = {
        "width": 24,
        "sparsity": {"nnz": 5, "n_updates": 12},
        "n_epochs": 10,
        "batch_users": 16,
        "learning_rate": 0.05,
    }
    return RecsysTrainConfig.model_validate(usual | changes)


def same(one: Factors, other: Factors) -> bool:
    return np.array_equal(one.users, other.users) and np.array_equal(one.items, other.items)


@pytest.mark.parametrize("start_hops", [0, 3])
@pytest.mark.parametrize("sparsity", [None, {"nnz": 5, "n_updates": 12}, {"nnz": 5, "scope": "global"}])
def test_it_learns_the_blocks(sparsity: dict[str, object] | None, start_hops: int) -> None:
    log = blocks()
    factors = train(config(sparsity=sparsity, n_epochs=40, start_hops=start_hops), log)
    scores = factors.users @ factors.items.T
    own = np.arange(60)[:, None] % 4 == np.arange(40) % 4
    assert scores[own].mean() > scores[~own].mean() + 0.2
    assert np.linalg.norm(factors.users, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(factors.items, axis=1) == pytest.approx(1, abs=1e-5)


def test_rows_hold_the_budget() -> None:
    factors = train(config(), blocks())
    for table in (factors.users, factors.items):
        assert (np.count_nonzero(table, axis=1) <= 5).all()
        assert np.count_nonzero(table) > 4 * table.shape[0]
    either = train(config(sparsity={"nnz": 5, "scope": "global", "n_updates": 12}), blocks())
    assert np.count_nonzero(either.items) <= 5 * 40
    assert np.count_nonzero(either.items, axis=1).max() > 5


@pytest.mark.parametrize("sparsity", [None, {"nnz": 5, "n_updates": 12}])
@pytest.mark.parametrize("n_sampled", [None, 9])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, sparsity: dict[str, object] | None, n_sampled: int | None
) -> None:
    chosen = config(sparsity=sparsity, n_sampled=n_sampled, checkpoint_every=7, log_every=3, batch_users=7)
    whole = train(chosen, blocks(), RunFolder.start(tmp_path / "whole", chosen))

    class KilledError(Exception):
        pass

    def kill(line: dict[str, float]) -> None:
        if line["step"] == 18:
            raise KilledError

    with pytest.raises(KilledError):
        train(chosen, blocks(), RunFolder.start(tmp_path / "cut", chosen), on_metrics=kill)
    resumed = RunFolder.start(tmp_path / "cut", chosen, resume=True)
    assert resumed.last_step() == 14
    assert same(train(chosen, blocks(), resumed), whole)
    assert resumed.metrics() == RunFolder(tmp_path / "whole").metrics()


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    often = config(checkpoint_every=3)
    assert same(train(often, blocks(), RunFolder.start(tmp_path, often)), train(config(), blocks()))


def test_the_seed_decides() -> None:
    assert same(train(config(), blocks()), train(config(), blocks()))
    assert not same(train(config(), blocks()), train(config(seed=1), blocks()))


def test_the_loss_is_the_plain_multinomial_one_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    taken = [[0, 3], [6], [1, 2, 5]]
    row = torch.tensor([r for r, items in enumerate(taken) for _ in items])
    column = torch.tensor([i for items in taken for i in items])
    fast = softmax_loss(logits, row, column, torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64))
    plain = torch.stack([-torch.log_softmax(logits[r], 0)[items].mean() for r, items in enumerate(taken)])
    assert torch.allclose(fast, plain, atol=1e-12)
    one, other = (torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (fast, plain))
    assert torch.allclose(one, other, atol=1e-12)


def test_the_sampled_denominator_is_an_unbiased_estimate() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.tensor([3, 8])
    others = torch.tensor([i for i in range(50) if i not in (3, 8)])
    sums = []
    for draw in range(3000):
        sample = others[torch.randperm(48, generator=torch.Generator().manual_seed(draw))[:6]]
        items = torch.cat([own, sample])
        weight = torch.tensor([0.0, 0.0, *[np.log(48 / 6)] * 6])
        loss = softmax_loss(
            logits[:, items], torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2.0]), weight
        )
        sums.append(torch.exp(loss + logits[0, own].mean()))
    assert torch.stack(sums).mean().item() == pytest.approx(logits.exp().sum().item(), rel=0.03)


def test_bfloat16_scores_are_close() -> None:
    model = FactorModel(*random_start(5, 9, 32, torch.Generator().manual_seed(0)))
    users = torch.arange(5)
    exact, rounded = model(users), model(users, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert torch.allclose(exact, rounded, atol=0.02)


def test_an_empty_row_has_a_moderate_gradient_and_others_the_same_length_as_ever() -> None:
    users, items = random_start(5, 9, 32, torch.Generator().manual_seed(0))
    users[2], items[4] = 0, 0
    model = FactorModel(users, items)
    (model(torch.arange(5)) ** 2 + model(torch.arange(5))).sum().backward()
    for table in model.tables().values():
        assert table.grad is not None
        assert 0 < table.grad.norm(dim=1).max() < 1e4
    factors = model.factors()
    assert not factors.users[2].any()
    rest = np.delete(factors.items, 4, axis=0)
    assert np.array_equal(
        rest, torch.nn.functional.normalize(model.items, dim=1).detach().numpy()[[0, 1, 2, 3, 5, 6, 7, 8]]
    )


@pytest.mark.parametrize(("n_users", "n_items"), [(1, 6), (5, 6)])
def test_where_all_took_the_same_the_start_is_random(tmp_path: Path, n_users: int, n_items: int) -> None:
    users, items = np.nonzero(np.ones((n_users, n_items)))
    log = Interactions.from_rows(users, items, n_users=n_users, n_items=n_items)
    factors = train(config(), log)
    for table in (factors.users, factors.items):
        assert np.linalg.norm(table, axis=1) == pytest.approx(1, abs=1e-5)
    built = Recommender.build(
        tmp_path / "it", users=factors.user_vectors(), items=factors.item_vectors(), interactions=log
    )
    answer = built.recommend(user="0", exclude_seen=False)
    assert answer.source == "user"
    assert answer.item_ids


def test_a_sparse_row_is_as_large_as_a_dense_one_of_the_equal_width() -> None:
    assert equal_width(51, 512) == 76
    table = np.zeros((10, 512), dtype=np.float32)
    table[:, :51] = 1
    sparse = Factors(table, table).item_vectors()
    assert stored_bytes(sparse) == 10 * 306
    assert stored_bytes(sparse, equal_rows=False) == 10 * 306 + 44
    assert stored_bytes(table[:, :76].copy()) == 10 * 304


def test_factors_survive_a_file(tmp_path: Path) -> None:
    factors = train(config(n_epochs=1), blocks())
    factors.save(tmp_path / "f.safetensors")
    assert same(Factors.load(tmp_path / "f.safetensors"), factors)
    vectors = factors.item_vectors()
    assert np.array_equal(vectors.to_scipy().toarray(), factors.items)
    assert vectors.signed


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate_at(step, 100, warmup=0.1, hold=0.5) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] == 1
    assert set(rates[9:51]) == {1}
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert 0.02 <= rates[-1] < 0.03


def test_nothing_to_learn_and_divergence_are_told() -> None:
    nothing = Interactions.from_rows(np.zeros(0), np.zeros(0), n_users=2, n_items=2)
    with pytest.raises(InputError, match="no interactions"):
        train(config(), nothing)
    with pytest.raises(TrainingError, match="learning rate"):
        train(config(learning_rate=1e38, sparsity=None), blocks())


def test_a_budget_wider_than_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="lower nnz or widen"):
        train(config(sparsity=SparsityConfig(nnz=25)), blocks())


def test_the_preset_of_the_demo_compares_equal_bytes() -> None:
    sparse, twin, equal = (
        load_preset("imports", RecsysTrainConfig, section=section)
        for section in ("train", "dense_twin", "dense_equal_bytes")
    )
    assert sparse.sparsity is not None
    assert (twin.sparsity, equal.sparsity) == (None, None)
    assert twin.width == sparse.width
    assert equal.width == equal_width(sparse.sparsity.nnz, sparse.width)
    assert all(section.checkpoint_every for section in (sparse, twin, equal))
    load_preset("imports", LogConfig, section="log")
