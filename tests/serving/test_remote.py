"""Encoders, indexes and writers elsewhere: in this process, as if it were others; `test_deploy` has replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.index.open import open_index as open_any
from gossamer.index.sharded import ShardedIndex
from gossamer.kernels.errors import ConfigError, InputError
from gossamer.serving import Engine, ServeSettings
from gossamer.serving.collections import configs_of
from gossamer.serving.opening import Openers, open_parts
from gossamer.serving.records import CreateRequest
from gossamer.serving.remote import RemoteEncoder, RemoteIndex, RemoteWriter, places_by_group
from gossamer.serving.replicas import DeployedCollections, Encoders, Shards
from gossamer.serving.scoring import Part, Scorer
from gossamer.serving.stage import version_of

N_TERMS = 12


def open_index(folder: Path) -> Any:
    """Of a kind that the type does not say."""
    return open_any(folder)


class Handle:
    """Calls an object's methods, and remembers what came back."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self.answers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> Any:
            self.answers.append(getattr(self._target, name)(*args))
            return self.answers[-1]

        return SimpleNamespace(remote=remote)


def ask(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def vectors(names: Sequence[str], seed: int = 0) -> SparseVectors:
    """Few weights of few values, so that scores are often equal."""
    random = np.random.default_rng(seed)
    rows = [
        {int(term): float(random.integers(1, 4)) for term in random.choice(N_TERMS, 4, replace=False)}
        for _ in names
    ]
    return SparseVectors.from_dicts(rows, N_TERMS, ids=list(names))


QUERIES = vectors([f"q{number}" for number in range(6)], seed=1)
NAMES = [f"d{number}" for number in range(60)]


@pytest.fixture(params=["whole", "3 shards"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "whole":
        InvertedIndex.build(tmp_path / "index", vectors(NAMES))
    else:
        ShardedIndex.build(tmp_path / "index", vectors(NAMES), n_shards=3)
    return tmp_path / "index"


def test_others_find_what_the_index_finds_and_ties_are_in_its_order(folder: Path) -> None:
    groups = [Handle(Shards([folder], group, 2)) for group in range(2)]
    index = open_index(folder)
    remote = RemoteIndex(index, groups, ask).view()
    allowed = np.arange(index.n_rows) % 3 > 0
    for how in ({}, {"allowed": allowed}, {"recall": 0.9}):
        for k in (1, 7, 100):
            expected = index.search(QUERIES, k, n_threads=2, **how)
            found = remote.search(QUERIES, k, n_threads=2, **how)
            assert found.rows.tolist() == expected.rows.tolist()
            assert found.scores.tobytes() == expected.scores.tobytes()
            assert found.ids.to_pylist() == expected.ids.to_pylist()
    assert len({*expected.scores[0].tolist()}) < expected.k, "there were ties"
    assert all(hits is not None for group in groups for answer in group.answers for hits in answer)


def test_a_search_is_of_the_moment_that_is_seen_here(folder: Path) -> None:
    groups = [Handle(Scorer()) for _ in range(2)]
    index = open_index(folder)
    remote = RemoteIndex(index, groups, ask)
    old, expected = remote.view(), index.view().search(QUERIES, 9, n_threads=1)
    old.search(QUERIES, 9, n_threads=1)
    index.update(vectors(["d3", "e1"], seed=2))
    index.delete(["d5"])
    new = remote.view()
    for view in (new, old, new):
        hits = view.search(QUERIES, 9, n_threads=1)
        own = expected if view is old else index.search(QUERIES, 9, n_threads=1)
        assert hits.rows.tolist() == own.rows.tolist()
        assert hits.scores.tobytes() == own.scores.tobytes()
    assert all(hits is not None for group in groups for answer in group.answers for hits in answer)


def test_where_moments_do_not_meet_it_is_searched_here(folder: Path) -> None:
    index = open_index(folder)
    before = RemoteIndex(index, [Handle(Scorer())], ask).view()
    expected = before.search(QUERIES, 9, n_threads=1)
    index.update(vectors(NAMES[:40], seed=3))
    late = Handle(Scorer())  # it never saw what was before
    before._groups = [late]
    hits = before.search(QUERIES, 9, n_threads=1)
    assert None in late.answers[0]
    assert hits.rows.tolist() == expected.rows.tolist()
    assert hits.scores.tobytes() == expected.scores.tobytes()


def test_a_part_that_is_gone_is_not_answered_for(tmp_path: Path) -> None:
    part = Part(tmp_path / "gone", "0.0", False, 1)
    assert Scorer().search([part], QUERIES, 3, {"n_threads": 1}) == [None]


def test_a_replica_keeps_some_moments(tmp_path: Path) -> None:
    index = InvertedIndex.build(tmp_path / "index", vectors(NAMES))
    scorer = Scorer([index.path])
    seen = []
    for number in range(10):
        seen.append(Part(index.path, version_of(index), False, index.n_rows))
        assert scorer.search(seen[-1:], QUERIES, 3, {"n_threads": 1}) != [None]
        index.delete([f"d{number}"])
    answered = [scorer.search([part], QUERIES, 3, {"n_threads": 1}) != [None] for part in seen]
    assert answered == [False] * 3 + [True] * 7, "the newest, which it has just seen, is the eighth"


def test_parts_are_shared_out_evenly_and_whole_indexes_too() -> None:
    for n_groups in (1, 2, 3, 7):
        groups = places_by_group(Path("index"), 6, n_groups)
        assert sorted(place for places in groups.values() for place in places) == list(range(6))
        assert max(map(len, groups.values())) - min(map(len, groups.values())) <= 1
    assert {next(iter(places_by_group(Path(str(n)), 1, 2))) for n in range(20)} == {0, 1}


def test_an_encoder_elsewhere_is_one(encoder_folder: Path, tmp_path: Path) -> None:
    from gossamer.lsr import Bm25Encoder, Encoder

    own = Bm25Encoder.load(encoder_folder)
    remote = RemoteEncoder(encoder_folder, Handle(Encoders([encoder_folder], 1)), ask)
    assert isinstance(remote, Encoder)
    assert (remote.info, remote.n_terms, remote.term(3)) == (own.info, own.n_terms, own.term(3))
    texts = ["join path segments", "", "a list"]
    assert remote.encode_queries(texts).to_dicts() == own.encode_queries(texts).to_dicts()
    assert remote.encode_documents(texts).to_dicts() == own.encode_documents(texts).to_dicts()
    with pytest.raises(InputError, match="copy the folder"):
        remote.save(tmp_path / "copy")


def test_a_write_elsewhere_is_known_here_when_it_returns(
    index_folder: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(index_folder, tmp_path / "index")
    settings = ServeSettings(index=tmp_path / "index", encoder=encoder_folder)
    (config,) = configs_of(settings).values()
    writer = Engine.open(settings)
    encoders, shards = Handle(Encoders([encoder_folder], 1)), Handle(Scorer())
    openers = Openers(
        index=lambda folder: RemoteIndex(open_index(folder), [shards], ask),
        encoder=lambda folder: RemoteEncoder(folder, encoders, ask),
    )
    search, _ = open_parts(config, settings, openers)
    assert search is not None
    to_writer = Handle(SimpleNamespace(write=lambda name, change: writer.put(change)))
    engine = Engine(search, writer=RemoteWriter("default", search, to_writer, ask))
    written = engine.put([{"id": "new", "text": "a path of my own"}])
    assert engine.search("own path", filters={"id": "new"}).version == written.version
    assert engine.get("new").text == "a path of my own"
    assert engine.health() == writer.health()
    engine.close()
    writer.close()


def test_the_collections_of_a_deployment_stay_as_they_are() -> None:
    collections = DeployedCollections({"default": Engine(None)})
    with pytest.raises(ConfigError, match="deploy again"):
        collections.create(CreateRequest(name="notes", retrievers={"words": "bm25"}))
    with pytest.raises(ConfigError, match="deploy again"):
        collections.drop("default")
    with pytest.raises(ConfigError, match="deploy again"):
        collections.reload("default")
