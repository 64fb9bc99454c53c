"""Documents in the order of their ids, whatever was done to an index before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index import InvertedIndex, SparseVectors

IDS = st.lists(st.text("aB#é\U0001f600", min_size=1, max_size=3), unique=True, max_size=12)


@settings(deadline=None, max_examples=60)
@given(changes=st.lists(st.tuples(st.booleans(), IDS), max_size=5), n=st.integers(1, 5), data=st.data())
def test_pages_are_all_documents_in_order(
    changes: list[tuple[bool, list[str]]],
    n: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nothing = SparseVectors.from_dicts([], 4, ids=[])
    index = InvertedIndex.build(tmp_path_factory.mktemp("listing") / "index", nothing)
    there: set[str] = set()
    for adds, ids in changes:
        if adds and ids:
            index.update(SparseVectors.from_dicts([{0: 1.0}] * len(ids), 4, ids=ids))
        elif ids:
            index.delete(ids, missing=True)
        there = there | set(ids) if adds else there - set(ids)
    documents = index.documents
    kept = {id_ for id_ in there if data.draw(st.booleans())}
    among = documents.mask({"id": sorted(kept)}) if kept else documents.live & False
    found: list[str] = []
    while True:
        rows = documents.after(found[-1] if found else None, n, among)
        found += documents.take(rows)["id"].to_pylist()
        if rows.size < n:
            break
    assert found == sorted(kept, key=str.encode)
    after = data.draw(st.text("aB#é", max_size=3))
    rows = documents.after(after, 2, documents.live)
    assert documents.take(rows)["id"].to_pylist() == sorted(id_ for id_ in there if id_ > after)[:2]
