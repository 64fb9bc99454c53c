"""What a build is predicted to take, against what it took; and budgets that it keeps to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.index import BuildConfig, InvertedIndex, SparseVectors
from gossamer.index.budget import Budget, InputSize
from gossamer.index.plan import plan_build
from gossamer.kernels.errors import ConfigError, NotFoundError
from tests.index.input_shards import write_shards
from tests.index.memory import peak_growth

CONFIGS = [
    ({}, False),
    ({"window": 512, "forward": False}, False),
    ({"impacts": "float32"}, False),
    ({"reorder": False}, True),
]


@pytest.mark.parametrize(("settings", "signed"), CONFIGS)
def test_sizes_are_as_predicted(tmp_path: Path, settings: Any, signed: bool) -> None:
    write_shards(tmp_path / "vectors", n_rows=6_000, n_files=12, signed=signed)
    config = BuildConfig(calibrate=False, **settings)
    plan = plan_build(tmp_path / "vectors", config=config)
    info = InvertedIndex.build(tmp_path / "index", tmp_path / "vectors", config=config).info()
    assert (plan.n_documents, plan.n_terms) == (info.n_documents, info.n_terms)
    assert plan.nnz >= info.nnz
    headers = 16 * 128 + 1_000  # of arrays and Arrow files, which a plan leaves out
    for part, planned in plan.bytes.items():
        assert planned == pytest.approx(info.bytes[part], rel=0.15, abs=headers), part
    assert sum(plan.bytes.values()) == pytest.approx(sum(info.bytes.values()), rel=0.15)


def test_time_is_shared_by_workers_and_grows_with_the_input(tmp_path: Path) -> None:
    for n_rows in (1_000, 4_000):
        write_shards(tmp_path / str(n_rows), n_rows=n_rows, n_files=2)
    one, other = (plan_build(tmp_path / "4000", n_workers=n).seconds for n in (1, 4))
    assert other < one < 4 * other
    assert one == pytest.approx(4 * plan_build(tmp_path / "1000").seconds, rel=0.1)
    with pytest.raises(NotFoundError, match="holds none"):
        plan_build(tmp_path)


def test_a_budget_that_cannot_do_is_refused_with_what_would(tmp_path: Path) -> None:
    write_shards(tmp_path / "vectors", n_rows=3_000, n_files=1)
    with pytest.raises(ConfigError, match=r"need [\d,]+: ids and the order") as refused:
        InvertedIndex.build(tmp_path / "index", tmp_path / "vectors", budget_bytes=5_000_000)
    needed = int(str(refused.value).split("need ")[1].split(":")[0].replace(",", ""))
    assert plan_build(tmp_path / "vectors", budget_bytes=needed).peak_bytes <= needed
    with pytest.raises(ConfigError):
        plan_build(tmp_path / "vectors", budget_bytes=needed - 1)


def test_a_budget_is_divided() -> None:
    size = InputSize(n_rows=2 * 10**6, nnz=2 * 10**8, longest=120.0, n_terms=30_000, id_bytes=2 * 10**7)
    small, large, none = (Budget.of(budget, size) for budget in (125 * 10**6, 10**10, None))
    assert large == Budget(is_limited=True)
    assert none == Budget()
    assert small.rows_at_once < large.rows_at_once
    assert small.max_centres < size.n_rows // 256
    assert small.peak_bytes(size) <= 125 * 10**6


BEFORE = """
    from pathlib import Path
    import pyarrow
    pyarrow.set_cpu_count(1)  # each thread that decodes takes 16 MB of the budget
    from gossamer.index import BuildConfig, InvertedIndex
    from gossamer.index.spread_build import build_spread
    from tests.index.input_shards import write_shards
    folder, config = Path({folder!r}), BuildConfig(calibrate=False)
    write_shards(folder / "small", n_rows=1_000, n_files=2)
    build_spread(folder / "index", folder / "small", config=config)  # compiles kernels
"""
CALL = """
    for build in (build_spread, InvertedIndex.build):
        build(folder / "index", folder / "vectors", config=config, budget_bytes={budget}, replace=True)
"""


def test_a_build_keeps_to_its_budget(tmp_path: Path) -> None:
    """Of a tenth of its input, of long rows; unasked it takes more than all of it."""
    budget, n_files, n_rows, n_terms, length = 32_000_000, 4, 10_000, 2_000, 1_000
    rng = np.random.default_rng(0)
    indices = np.sort(np.argsort(rng.random((n_rows // 100, n_terms)), axis=1)[:, :length], axis=1)
    values = rng.gamma(2, 0.5, (10, n_rows // 100 * length)).astype(np.float32)
    rows = SparseVectors(
        np.arange(n_rows + 1) * length,
        np.tile(indices, (100, 1)).ravel(),
        np.tile(values, (10, 1)).ravel(),
        n_terms,
    )
    (tmp_path / "vectors").mkdir()
    for number in range(n_files):
        names = [f"d{row}" for row in range(number * n_rows, (number + 1) * n_rows)]
        rows.with_ids(names).write_parquet(tmp_path / "vectors" / f"{number}.parquet")
    assert InputSize.of(tmp_path / "vectors").bytes > 10 * budget
    assert peak_growth(BEFORE.format(folder=str(tmp_path)), CALL.format(budget=budget)) < budget
