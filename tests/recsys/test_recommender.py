from pathlib import Path

import pytest

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
