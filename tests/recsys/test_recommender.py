from pathlib import Path

import numpy as np
import pytest

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.sparsity import SparsityConfig
from gossamer.recsys import FoldInConfig, Interactions, Recommender, RecsysTrainConfig
from gossamer.recsys.train import train
from tests.contracts.recommender import RecommenderContract

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


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    from gossamer.kernels.errors import FormatError

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
