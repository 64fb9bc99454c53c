from pathlib import Path

import ir_measures
import numpy as np
import pytest

from gossamer.kernels.errors import InputError
from gossamer.recsys import Interactions, Popularity, Recommender, compare
from gossamer.recsys.evaluate import dense_rank, measure, popularity_rank
from gossamer.recsys.model import Factors
from gossamer.recsys.split import leave_one_out
from gossamer.recsys.train import train
from tests.recsys.test_train import blocks, config


def factors(n_users: int, n_items: int, seed: int = 0) -> Factors:
    chance = np.random.default_rng(seed)
    tables = (chance.standard_normal((n, 6)).astype(np.float32) for n in (n_users, n_items))
    return Factors(*tables)


def test_measures_are_those_of_ir_measures() -> None:
    log = blocks()
    chance = np.random.default_rng(1)
    held = log.take(chance.random(len(log)) < 0.3)  # several relevant items a user, and users without any
    rank = dense_rank(factors(60, 40), log.take(np.zeros(0, np.int64)), k=10)
    found = measure(rank, held)
    ranked = rank(np.arange(60))
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, i in zip(held.users, held.items, strict=True)]
    run = [
        ir_measures.ScoredDoc(str(u), str(i), float(-at))
        for u in range(60)
        for at, i in enumerate(ranked[u])
        if i >= 0
    ]
    wanted = ir_measures.calc_aggregate([ir_measures.R @ 10, ir_measures.nDCG @ 10], qrels, run)
    assert found == pytest.approx({str(name): value for name, value in wanted.items()}, abs=1e-9)


def test_full_ranking_is_brute_force_without_the_seen() -> None:
    log, model = blocks(), factors(60, 40)
    ranked = dense_rank(model, log, k=12)(np.arange(60))
    matrix = log.matrix()
    for user in range(60):
        scores = model.items @ model.users[user]
        seen = set(matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]].tolist())
        order = [i for i in np.argsort(-scores, kind="stable").tolist() if i not in seen][:12]
        assert ranked[user].tolist() == order
    everything = Interactions.from_rows(np.zeros(40), np.arange(40), n_users=60, n_items=40)
    assert dense_rank(model, everything, k=3)(np.array([0])).tolist() == [[-1, -1, -1]]


def test_popularity_counts_and_breaks_ties_by_row() -> None:
    log = Interactions.from_rows(
        np.array([0, 1, 2, 0, 1, 3]), np.array([2, 2, 2, 0, 1, 1]), n_users=4, n_items=4
    )
    popularity = Popularity.count(log)
    assert popularity.rank(4).tolist() == [2, 1, 0, 3]
    assert popularity_rank(popularity, log, k=3)(np.array([0, 3])).tolist() == [[1, 3, -1], [2, 0, 3]]


def test_through_the_index_the_model_ranks_as_by_brute_force(tmp_path: Path) -> None:
    split = leave_one_out(blocks(n_users=90), seed=1)
    model = train(config(n_epochs=30), split.train)
    recommender = Recommender.build(
        tmp_path / "r", users=model.user_vectors(), items=model.item_vectors(), interactions=split.train
    )
    rows = compare(recommender, split.train, split.test, dense={"brute force": model}, n_timed=5)
    table = {row.model: row for row in rows}
    assert list(table) == ["popularity", "brute force", "sparse, through the index"]
    exact, through = table["brute force"], table["sparse, through the index"]
    assert through.measures == pytest.approx(exact.measures, abs=0.05)
    assert through.measures["R@10"] > table["popularity"].measures["R@10"] + 0.2
    assert through.bytes < exact.bytes / 2
    assert all(0 < row.p50_us <= row.p99_us for row in rows)


def test_nothing_held_out_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is held out"):
        measure(lambda users: users[:, None], blocks().take(np.zeros(0, np.int64)))
