import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError
from gossamer.kernels.sparsity import SparsityConfig
from gossamer.recsys import FoldInConfig, Interactions, Recommender, RecsysTrainConfig
from gossamer.recsys.reasons import contributions
from gossamer.recsys.train import train
from tests.contracts.recommender import N, RecommenderContract, documents

SPARSE = SparsityConfig(nnz=6, n_updates=20)


class TestSparse(RecommenderContract):
    sparsity: SparsityConfig | None = SPARSE
    nnz: int | None = 6

    @classmethod
    def make(cls, log: Interactions, path: Path) -> Recommender:
        config = RecsysTrainConfig(
            width=16, sparsity=cls.sparsity, n_epochs=150, temperature=0.3, batch_users=8
        )
        factors = train(config, log)
        return Recommender.build(
            path,
            users=factors.user_vectors(),
            items=factors.item_vectors(),
            interactions=log,
            item_documents=documents(),
            group="colour",
            fold_in=FoldInConfig(nnz=cls.nnz),
        )

    def test_a_folded_in_user_keeps_the_budget(self, recommender: Recommender) -> None:
        vectors = recommender.fold_in([recommender.seen(0), recommender.seen(1)[:2]])
        assert (vectors.indptr[1:] - vectors.indptr[:-1] <= (self.nnz or 16)).all()

    def test_stored_bytes_count_indices(self, recommender: Recommender) -> None:
        nnz = recommender.user_vectors.nnz + recommender.items.nnz
        assert 6 * nnz <= recommender.stored_bytes <= 6 * nnz + 4 * (16 + 16 + 2)


class TestDense(TestSparse):
    """Dense factors are vectors without zeros: the same folder serves them."""

    sparsity = None
    nnz = None


class TestLongVectors(TestSparse):
    """Items whose vectors are of several lengths, as others' models may be: what is similar does not depend on it."""

    @classmethod
    def make(cls, log: Interactions, path: Path) -> Recommender:
        unit = super().make(log, path / "unit")
        lengths = np.linspace(0.9, 1.1, N)[:, None]
        items = SparseVectors.from_dense(unit.item_vectors.to_scipy().toarray() * lengths, signed=True)
        return Recommender.build(
            path / "it",
            users=unit.user_vectors,
            items=items,
            interactions=log,
            item_documents=documents(),
            group="colour",
            fold_in=FoldInConfig(nnz=cls.nnz),
        )

    def test_similar_items_are_as_at_unit_length(self, recommender: Recommender) -> None:
        unit = Recommender.open(recommender.path.parent / "unit")
        assert (recommender.path / "directions").is_dir()
        assert not (unit.path / "directions").exists()
        for item in range(N):
            found, wanted = (one.similar(f"item {item}", 4) for one in (recommender, unit))
            assert found.scores == pytest.approx(wanted.scores, abs=0.03)


def test_a_folder_of_the_first_version_still_opens(tmp_path: Path) -> None:
    log = Interactions.from_rows(np.array([0, 1, 1]), np.array([0, 1, 2]), n_users=2, n_items=3)
    users = SparseVectors.from_dense(np.eye(2, dtype=np.float32))
    for name, items in [("unit", [[1, 0], [0.6, 0.8], [0, 1]]), ("long", [[1, 0], [6, 8], [0, 1]])]:
        vectors = SparseVectors.from_dense(np.array(items, np.float32))
        built = Recommender.build(tmp_path / name, users=users, items=vectors, interactions=log)
        wanted = built.similar("0").item_ids
        assert wanted == ["1"]
        about = (built.path / "recommender.json").read_text().replace('"version": 2', '"version": 1')
        (built.path / "recommender.json").write_text(about)
        shutil.rmtree(built.path / "directions", ignore_errors=True)
    assert Recommender.open(tmp_path / "unit").similar("0").item_ids == wanted
    long = Recommender.open(tmp_path / "long")
    assert long.recommend(user="0").source == "user"
    with pytest.raises(FormatError, match="export it again"):
        long.similar("0")


def test_contributions_add_up_to_the_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = Interactions.from_rows(rng.integers(0, 9, 60), rng.integers(0, 30, 60), n_users=9, n_items=30)
    users, items = (
        SparseVectors.from_dense(rng.standard_normal((n, 12)).astype(np.float32), signed=True)
        for n in (9, 30)
    )
    config = FoldInConfig(ridge=0.5, catalogue=0.4, nnz=7)
    built = Recommender.build(tmp_path / "it", users=users, items=items, interactions=log, fold_in=config)
    for n_taken in (1, 5, 20):  # fewer than coordinates, and more
        history = np.sort(rng.permutation(30)[:n_taken])
        answer = built.recommend(history=[str(row) for row in history], k=30, exclude_seen=False)
        rows = np.array([int(item) for item in answer.item_ids])
        parts, rest = contributions(built, history, rows)
        assert parts.shape == (rows.size, n_taken)
        assert rest.any()
        assert parts.sum(axis=1) + rest == pytest.approx(np.array(answer.scores), abs=2e-3)


def test_a_cap_that_all_share_gives_one(tmp_path: Path) -> None:
    """Every round finds items that there is no room for; the search goes on until there are no more."""
    n = 300
    log = Interactions.from_rows(np.zeros(n, int), np.arange(n), n_users=1, n_items=n)
    items = SparseVectors.from_dense(
        np.linspace(1, 0.5, n, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    )
    sets = pa.table({"id": [str(i) for i in range(n)], "set": [i == n - 1 for i in range(n)]})
    built = Recommender.build(
        tmp_path / "it",
        users=SparseVectors.from_dense(np.ones((1, 2), np.float32)),
        items=items,
        interactions=log,
        item_documents=sets,
    )
    found = built.recommend(user="0", k=50, exclude_seen=False, most_per=("set", 1))
    assert found.item_ids == ["0", str(n - 1)]


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recommender.json").write_text('{"format": "gossamer-recommender", "version": 99}')
    with pytest.raises(FormatError, match="version 99"):
        Recommender.open(tmp_path)


def test_an_empty_vector_is_answered_by_popularity(tmp_path: Path) -> None:
    log = Interactions.from_rows(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2]), n_users=2, n_items=3)
    users = SparseVectors.from_dense(np.array([[0, 0], [1, 0]], np.float32), signed=True)
    items = SparseVectors.from_dense(np.array([[0, 0], [1, 0], [0.6, 0.8]], np.float32), signed=True)
    built = Recommender.build(
        tmp_path / "it", users=users, items=items, interactions=log, fold_in=FoldInConfig(catalogue=0)
    )
    unseen = built.recommend(user="0")
    assert (unseen.item_ids, unseen.scores, unseen.source, unseen.unknown) == (["2"], [1], "popularity", [])
    assert built.recommend(user="0", exclude_seen=False).item_ids == ["0", "1", "2"]
    both = built.recommend_users(["1", "0", "1"], exclude_seen=False)
    assert [answer.source for answer in both] == ["user", "popularity", "user"]
    assert both[0] == both[2]
    folded = built.recommend(history=["0", "what"])
    assert (folded.item_ids, folded.source, folded.unknown) == (["1", "2"], "popularity", ["what"])
    assert built.recommend(history=["1"]).source == "history"
