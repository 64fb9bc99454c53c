"""What every backend of `sparse_dot_topk` has to do."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from gossamer.kernels.sparse_dot import Backend, Bounds, Postings, Queries, TopK, mask_of, sparse_dot_topk

RANGES = {"uint8": (1, 255), "int8": (-127, 127), "float32": (-1, 1)}


def make_postings(
    impacts_DV: npt.NDArray[Any],
    window: int,
    rows: npt.NDArray[Any] | None = None,
    n_dense: int | None = None,
) -> Postings:
    """Postings of the entries of a dense matrix that are not zero, with bounds for uint8.

    `rows` says which document stands where, by default in reverse; the `n_dense` most frequent terms, by default a
    third of all, are dense.
    """
    n_documents, n_terms = impacts_DV.shape
    rows = np.arange(n_documents)[::-1] if rows is None else rows
    terms, positions = np.nonzero(impacts_DV[rows].T)
    n_windows = -(-n_documents // window)
    bases = np.searchsorted(terms, np.arange(n_terms + 1)).astype(np.int64)
    keys = terms * n_windows + positions // window
    starts = np.searchsorted(keys, np.arange(n_terms)[:, None] * n_windows + np.arange(n_windows + 1))
    postings = Postings(
        n_documents,
        n_terms,
        window,
        bases,
        (starts - bases[:-1, None]).astype(np.uint32),
        (positions % window).astype(np.uint16),
        impacts_DV[rows[positions], terms],
        rows.astype(np.uint32),
    )
    if impacts_DV.dtype != np.uint8:
        return postings
    return postings._replace(bounds=make_bounds(impacts_DV[rows], window, n_dense))


def make_bounds(impacts_DV: npt.NDArray[np.uint8], window: int, n_dense: int | None) -> Bounds:
    """The bounds of documents in the order of their positions."""
    n_documents, n_terms = impacts_DV.shape
    n_windows, blocks = -(-n_documents // window), -(-window // 32)
    filled = np.zeros((n_windows, blocks * 32, n_terms), np.uint8)
    for number in range(n_windows):
        part = impacts_DV[number * window : (number + 1) * window]
        filled[number, : len(part)] = part
    n_dense = -(-n_terms // 3) if n_dense is None else n_dense
    by_frequency = np.argsort(-(impacts_DV != 0).sum(axis=0), kind="stable")
    dense_terms = np.sort(by_frequency[:n_dense]).astype(np.int32)
    dense = filled[:, :, dense_terms].transpose(2, 0, 1).reshape(len(dense_terms), n_windows * blocks * 32)
    block_max = dense.reshape(len(dense_terms), n_windows * blocks, 32).max(axis=2, initial=0)
    window_max = filled.max(axis=1, initial=0).T
    return Bounds(*(np.ascontiguousarray(array) for array in (window_max, dense_terms, dense, block_max)))


def make_queries(weights_QV: npt.NDArray[Any]) -> Queries:
    """Queries of the entries of a dense matrix that are not zero."""
    rows, terms = np.nonzero(weights_QV)
    indptr = np.searchsorted(rows, np.arange(len(weights_QV) + 1)).astype(np.int64)
    return Queries(indptr, terms.astype(np.int32), weights_QV[rows, terms])


def random_impacts(
    rng: np.random.Generator, shape: tuple[int, int], density: float, kind: str
) -> npt.NDArray[Any]:
    """A dense matrix of impacts, most of them zero."""
    low, high = RANGES[kind]
    values = (
        rng.uniform(low, high, shape) if kind == "float32" else rng.integers(low, high, shape, endpoint=True)
    )
    return np.where(rng.random(shape) < density, values, 0).astype(kind)


def random_weights(
    rng: np.random.Generator, shape: tuple[int, int], density: float, kind: str
) -> npt.NDArray[Any]:
    """A dense matrix of query weights that go with such impacts."""
    if kind == "float32":
        return random_impacts(rng, shape, density, kind)
    low, high = RANGES[kind]
    values = rng.integers(50 * low, 50 * high, shape, endpoint=True)
    return np.where(rng.random(shape) < density, values, 0).astype(np.int16)


def brute_force(
    weights_QV: npt.NDArray[Any],
    impacts_DV: npt.NDArray[Any],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> TopK:
    """Every score, from dense matrices and with no shared code: the oracle of these tests."""
    is_float = impacts_DV.dtype == np.float32
    rows = np.full((len(weights_QV), k), -1, np.int64)
    scores: npt.NDArray[Any] = np.full(
        rows.shape, -np.inf if is_float else -(2**31), "f4" if is_float else "i4"
    )
    for q, weights_V in enumerate(weights_QV):
        hits = []
        for d, impacts_V in enumerate(impacts_DV):
            shared = np.flatnonzero((weights_V != 0) & (impacts_V != 0))
            if len(shared) and (allowed is None or allowed[d]):
                score = np.float32(0) if is_float else 0
                for term in shared:  # one rounded product after the other
                    score += (
                        weights_V[term] * impacts_V[term]
                        if is_float
                        else int(weights_V[term]) * int(impacts_V[term])
                    )
                hits.append((-score, d))
        for rank, (negative, d) in enumerate(sorted(hits)[:k]):
            rows[q, rank], scores[q, rank] = d, -negative
    return TopK(rows, scores)


class SparseDotContract:
    """Inherit, and set the backend and the kinds that it has."""

    backend: ClassVar[Backend]
    kinds: ClassVar[tuple[str, ...]] = ("uint8", "int8", "float32")

    @pytest.fixture(params=("uint8", "int8", "float32"))
    def kind(self, request: pytest.FixtureRequest) -> str:
        if request.param not in self.kinds:
            pytest.skip(f"{self.backend} has no {request.param} kind")
        return str(request.param)

    def check(
        self,
        weights_QV: npt.NDArray[Any],
        impacts_DV: npt.NDArray[Any],
        k: int,
        window: int,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        queries, postings = make_queries(weights_QV), make_postings(impacts_DV, window)
        found = sparse_dot_topk(queries, postings, k, allowed=allowed, backend=self.backend)
        expected = brute_force(weights_QV, impacts_DV, k, allowed)
        assert found.rows.dtype == np.int64
        assert found.scores.dtype == expected.scores.dtype
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)  # every bit, float32 too

    @pytest.mark.parametrize("max_windows", [1, 2, 3, 50])
    def test_only_the_best_windows_are_looked_into(self, max_windows: int) -> None:
        rng = np.random.default_rng(3)
        impacts_DV = random_impacts(rng, (130, 17), 0.3, "uint8")
        postings = make_postings(impacts_DV, 33)
        queries = make_queries(np.abs(random_weights(rng, (9, 17), 0.4, "int8")))
        found = sparse_dot_topk(queries, postings, 7, max_windows=max_windows, backend=self.backend)
        expected = sparse_dot_topk(queries, postings, 7, max_windows=max_windows, backend="reference")
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert postings.bounds is not None
        for q, rows in enumerate(found.rows):
            entries = slice(*queries.indptr[q : q + 2])
            bounds = queries.weights[entries] @ postings.bounds.window_max[queries.terms[entries]].astype(int)
            best = set(np.argsort(-bounds, kind="stable")[:max_windows].tolist())
            where = {int(np.flatnonzero(postings.rows == row)[0]) // 33 for row in rows if row >= 0}
            assert where <= best

    @pytest.mark.parametrize("n_dense", [0, 1, 17])
    @pytest.mark.parametrize("k", [1, 10, 40])
    def test_dense_terms_change_nothing(self, n_dense: int, k: int) -> None:
        rng = np.random.default_rng(5)
        impacts_DV = random_impacts(rng, (200, 17), 0.3, "uint8")
        postings = make_postings(impacts_DV, 70, rng.permutation(200), n_dense)
        weights_QV = np.abs(random_weights(rng, (40, 17), 0.4, "int8"))  # more than one batch
        for weights in (weights_QV, np.minimum(weights_QV, 5)):  # sums in 32 bits, and in 16
            found = sparse_dot_topk(make_queries(weights), postings, k, backend=self.backend)
            expected = brute_force(weights, impacts_DV, k)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)

    @pytest.mark.parametrize(
        ("n_documents", "n_terms", "n_queries", "k", "window"),
        [
            (1, 1, 1, 1, 1),
            (7, 5, 3, 2, 3),
            (40, 11, 5, 7, 40),
            (130, 17, 4, 10, 129),
            (33, 6, 3, 50, 8),
            (257, 9, 2, 5, 256),
        ],
    )
    @pytest.mark.parametrize("density", [0.1, 0.6])
    def test_equals_brute_force(
        self, kind: str, n_documents: int, n_terms: int, n_queries: int, k: int, window: int, density: float
    ) -> None:
        rng = np.random.default_rng(n_documents)
        impacts_DV = random_impacts(rng, (n_documents, n_terms), density, kind)
        weights_QV = random_weights(rng, (n_queries, n_terms), density, kind)
        self.check(weights_QV, impacts_DV, k, window)

    def test_ties_go_to_the_earlier_row(self, kind: str) -> None:
        impacts_DV = np.full((50, 3), 2, kind)
        impacts_DV[[7, 30]] = 3
        weights_QV = np.full((2, 3), 4, "float32" if kind == "float32" else "int16")
        for k in (1, 5, 50, 60):
            self.check(weights_QV, impacts_DV, k, window=8)

    def test_sums_of_zero_and_less_are_hits(self, kind: str) -> None:
        if kind == "uint8":
            impacts_DV = np.array([[1, 1], [2, 1], [0, 9], [1, 2], [0, 0], [3, 3]], kind)
        else:
            impacts_DV = np.array([[1, 1], [-2, -2], [0, -9], [2, 1], [0, 0], [-1, 1]], kind)
        weights_QV = np.array([[1, -1], [-1, -1], [-1, 1]], "float32" if kind == "float32" else "int16")
        for k in (1, 2, 3, 4, 5, 9):
            self.check(weights_QV, impacts_DV, k, window=2)

    def test_many_ties_with_signs_and_windows(self, kind: str) -> None:
        rng = np.random.default_rng(3)
        signed = kind != "uint8"
        impacts_DV = rng.integers(-1 if signed else 0, 2, (90, 6)).astype(kind)
        weights_QV = rng.integers(-1, 2, (5, 6)).astype("float32" if kind == "float32" else "int16")
        for k, window in ((1, 90), (3, 13), (20, 29), (89, 16), (200, 64)):
            self.check(weights_QV, impacts_DV, k, window)

    def test_the_largest_sums(self, kind: str) -> None:
        if kind == "float32":
            pytest.skip("a limit of the integer kinds")
        limit = np.iinfo(kind).max
        impacts_DV = np.full((3, 257), limit, kind)
        impacts_DV[1, 0] = 1
        weights_QV = np.full((2, 257), 32_767, "int16")  # 257 * 255 * 32,767 = 2**31 - 98,303
        weights_QV[1] = -32_767
        self.check(weights_QV, impacts_DV, 3, 2)

    def test_a_mask_leaves_documents_out(self, kind: str) -> None:
        rng = np.random.default_rng(5)
        impacts_DV = random_impacts(rng, (70, 8), 0.5, kind)
        weights_QV = random_weights(rng, (4, 8), 0.5, kind)
        for share in (0.0, 0.1, 0.7, 1.0):
            self.check(weights_QV, impacts_DV, 6, 16, allowed=rng.random(70) < share)

    def test_only_terms_that_occur_may_have_lists(self, kind: str) -> None:
        rng = np.random.default_rng(9)
        impacts_DV = random_impacts(rng, (90, 40), 0.4, kind)
        occurs = rng.random(40) < 0.3
        impacts_DV[:, ~occurs] = 0
        weights_QV = random_weights(rng, (9, 40), 0.5, kind)
        weights_QV[3, occurs] = 0
        terms = np.flatnonzero(occurs).astype(np.int32)
        postings = make_postings(impacts_DV[:, occurs], 33)._replace(n_terms=40, terms=terms)
        found = sparse_dot_topk(make_queries(weights_QV), postings, 7, backend=self.backend)
        expected = brute_force(weights_QV, impacts_DV, 7)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert postings.run(int(np.flatnonzero(~occurs)[-1]), 0) == slice(0, 0)
        assert postings.run(int(terms[2]), 1) == postings._replace(n_terms=len(terms), terms=None).run(2, 1)

    @pytest.mark.parametrize("blocks", [False, True])
    def test_a_mask_may_know_its_blocks(self, kind: str, blocks: bool) -> None:
        rng = np.random.default_rng(6)
        impacts_DV = random_impacts(rng, (400, 8), 0.5, kind)
        weights_QV = np.abs(random_weights(rng, (12, 8), 0.5, kind))
        postings, queries = make_postings(impacts_DV, 70), make_queries(weights_QV)
        for allowed in (rng.random(400) < 0.02, rng.random(400) < 0.9, np.arange(400) // 50 % 2 == 0):
            mask = mask_of(allowed, postings, blocks=blocks)
            assert blocks * 18 * (kind == "uint8") == len(mask.open_blocks)
            found = sparse_dot_topk(queries, postings, 9, allowed=mask, backend=self.backend)
            expected = brute_force(weights_QV, impacts_DV, 9, allowed)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)

    def test_empty_queries_have_no_hits(self, kind: str) -> None:
        impacts_DV = np.ones((4, 3), kind)
        weights_QV = np.zeros((3, 3), "float32" if kind == "float32" else "int16")
        weights_QV[1, 2] = 1
        self.check(weights_QV, impacts_DV, 2, 3)
        self.check(weights_QV[:0], impacts_DV, 2, 3)

    def test_empty_collections(self, kind: str) -> None:
        weights_QV = np.ones((2, 3), "float32" if kind == "float32" else "int16")
        self.check(weights_QV, np.zeros((0, 3), kind), 2, 5)
        self.check(weights_QV, np.zeros((9, 3), kind), 2, 5)

    def test_full_windows(self, kind: str) -> None:
        """Documents on both sides of the first window's end, found by their one rare term."""
        n_documents = 65_536 + 3
        rows = np.array([0, 65_535, 65_536, 65_538])
        impacts_DV = sp.csr_array(
            (np.array([1, 4, 3, 4], kind), (rows, [1, 1, 1, 1])), shape=(n_documents, 2)
        )
        postings = make_postings(impacts_DV.toarray(), 65_536)
        queries = make_queries(np.array([[0, 2]], "float32" if kind == "float32" else "int16"))
        found = sparse_dot_topk(queries, postings, 5, backend=self.backend)
        assert found.rows.tolist() == [[65_535, 65_538, 65_536, 0, -1]]
        assert found.scores[0, :4].tolist() == [8, 8, 6, 2]

    def test_read_only_maps(self, kind: str, tmp_path: Any) -> None:
        rng = np.random.default_rng(8)
        impacts_DV = random_impacts(rng, (30, 6), 0.5, kind)
        weights_QV = random_weights(rng, (3, 6), 0.5, kind)
        postings = make_postings(impacts_DV, 8)
        mapped = {}
        for name in ("bases", "offsets", "local", "impacts"):
            np.save(tmp_path / f"{name}.npy", getattr(postings, name))
            mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        found = sparse_dot_topk(
            make_queries(weights_QV), postings._replace(**mapped), 4, backend=self.backend
        )
        np.testing.assert_array_equal(found.rows, brute_force(weights_QV, impacts_DV, 4).rows)
