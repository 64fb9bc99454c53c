"""Shards on Ray actors answer as on threads, also after one was lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gossamer.index.shard_actors import ActorShards
from gossamer.index.shard_server import ShardServer
from gossamer.index.sharded import ShardedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    BackendError,
    ConfigError,
    CorruptError,
    InputError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from tests.index.test_sharded import DATA, HOWS, assert_same, pair, texts


def test_a_server_without_a_shard_answers_nothing(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 2, ["d1", "d2", "d3"])
    server = ShardServer(str(many.path), 2, 3)
    assert server.search({}, DATA.queries(), 3, {"n_threads": 2}, (None, None)) == []
    assert server.look() == []


def test_actors_answer_as_threads_do(ray_cluster: None, tmp_path: Path) -> None:
    """One group of actors for all laws, since starting it takes longer than them."""
    names = [f"d{number}" for number in range(30)]
    many, one = pair(tmp_path, 5, names)
    queries = DATA.queries()
    with ActorShards(many.path, n_actors=2) as actors:
        assert_same(actors, one)
        for how in HOWS:
            expected, hits = many.search(queries, 40, **how), actors.search(queries, 40, **how)
            assert hits.rows.tolist() == expected.rows.tolist()
            assert hits.of(0) == expected.of(0)
        allowed = many.documents.mask({"year": 2003})
        assert actors.search(queries, allowed=allowed).of(1) == many.search(queries, allowed=allowed).of(1)
        assert actors.info() == many.info()
        assert (len(actors), actors.n_rows, actors.generation) == (30, 30, many.generation)
        assert actors.documents.schema == many.documents.schema
        assert actors.documents.take([]).schema == many.documents.schema

        with pytest.raises(ConfigError, match="did you mean 'year'"):
            actors.search(queries, filters={"yeer": 1})
        with pytest.raises(MismatchError, match="over 31 terms"):
            actors.search(SparseVectors.from_dicts([{0: 1.0}], 31))
        with pytest.raises(InputError, match=r"allowed is bool of \(3,\)"):
            actors.search(queries, allowed=[True] * 3)
        with pytest.raises(InputError, match=r"row 30 is outside 0\.\.29"):
            actors.documents.take([30])

        before = actors.pids
        os.kill(before[0], signal.SIGKILL)
        assert_same(actors, one)
        after = actors.pids
        assert (after[0] != before[0], after[1]) == (True, before[1])

        old = actors.view()
        hits = old.search(queries, 9)
        for index in (many, one):
            index.update(
                DATA.vectors(["d3", "e1"]), documents=texts(["d3", "e1"]).append_column("new", [["x", "y"]])
            )
            index.delete(["d5", "d6"])
        assert old.search(queries, 9).rows.tolist() == hits.rows.tolist(), "seen only after a refresh"
        assert actors.refresh()
        assert not actors.refresh()
        assert_same(actors, one)
        assert actors.search(queries, filters={"new": "y"}).of(0) == one.search(
            queries, filters={"new": "y"}
        ).of(0)
        assert old.search(queries, 9).rows.tolist() == hits.rows.tolist(), "a view stays"
        rows = hits.rows[hits.rows >= 0]
        assert old.documents.take(rows)["id"].to_pylist() == [
            i for row in hits.ids.to_pylist() for i in row if i
        ]

        actors.verify()
        for name in ("d7", "d8", "d9", "d10", "d11", "d12"):
            many.delete([name])
        many.merge(1)
        actors.refresh()
        many.add(DATA.vectors(["f1"]))
        many.merge(1)
        actors.refresh()
        with pytest.raises(StorageError, match="was changed since; search again"):
            old.documents.take(rows)

        one.merge(1)
        ShardedIndex.build(many.path, one.vectors(), n_shards=3, replace=True)
        actors.refresh()
        assert actors.n_shards == 3
        assert actors.search(queries, 5).ids == ShardedIndex.open(many.path).search(queries, 5).ids
        damaged = next(many.path.glob("shard-002/segments/*/impacts.npy"))
        content = bytearray(damaged.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
        with pytest.raises(CorruptError, match=r"shard-002.*impacts\.npy was altered"):
            actors.verify()
    with pytest.raises(BackendError, match="were ended"):
        actors.search(queries)
    with pytest.raises(NotFoundError, match="no index at"):
        ActorShards(tmp_path / "none", n_actors=1)
    with pytest.raises(InputError, match="n_actors is 0"):
        ActorShards(many.path, n_actors=0)
