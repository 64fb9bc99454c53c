"""Laws of what a recommender selects, and of the clicks it is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index.disk import using
from gossamer.index.inverted import InvertedIndex
from gossamer.recsys import LiveInteractions
from gossamer.recsys.selection import Cap, ItemValues, best_items
from tests.contracts.index_life import Unflushed
from tests.contracts.oracle import brute_force, random_vectors

laws = settings(deadline=None, max_examples=40)


@laws
@given(data=st.data(), seed=st.integers(0, 2**16), few_values=st.booleans())
def test_selection_is_going_down_the_whole_list(data: st.DataObject, seed: int, few_values: bool) -> None:
    rng = np.random.default_rng(seed)
    n_items, n_queries = int(rng.integers(1, 30)), int(rng.integers(1, 4))
    items = random_vectors(rng, n_items, 6, 0.5, signed=True, few_values=few_values)
    queries = random_vectors(rng, n_queries, 6, 0.6, signed=True, few_values=few_values, names=None)
    allowed = data.draw(st.one_of(st.none(), st.just(rng.random(n_items) < 0.6)))
    shelves = pa.array(rng.choice(["a", "b", "c"], n_items), mask=rng.random(n_items) < 0.3)
    most, k = data.draw(st.sampled_from([None, 1, 2, 30])), data.draw(st.sampled_from([1, 3, 40]))
    taken = [np.flatnonzero(rng.random(n_items) < rng.random()) for _ in range(n_queries)]
    with using(Unflushed()), tempfile.TemporaryDirectory() as folder:
        documents = pa.table({"id": items.ids, "shelf": shelves})
        index = InvertedIndex.build(Path(folder) / "it", items, documents=documents)
        cap = None if most is None else Cap(ItemValues.of(index.documents, "shelf"), most)
        rows, scores = best_items(index, queries, taken, k, allowed=allowed, cap=cap)
        kind = index.info().impacts
    everything = brute_force(items, queries, n_items, kind)
    for query in range(n_queries):
        wanted, had = [], dict.fromkeys("abc", 0)
        for row, score in zip(everything.rows[query].tolist(), everything.scores[query], strict=True):
            shelf = shelves[row].as_py()
            is_free = row >= 0 and row not in taken[query] and (allowed is None or allowed[row])
            if is_free and (shelf is None or most is None or had[shelf] < most):
                wanted.append((row, score))
                had |= {} if shelf is None else {shelf: had[shelf] + 1}
        found = list(zip(rows[query].tolist(), scores[query], strict=True))
        assert found == (wanted + [(-1, -np.inf)] * k)[:k]


@laws
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd")), max_size=3),
            st.sampled_from(["close", "compact", "refresh", "forget"]),
        ),
        max_size=25,
    )
)
def test_clicks_are_a_dictionary_of_lists(steps: list[list[tuple[str, str]] | str]) -> None:
    """Whatever is done between them, for who writes, who reads along, and who opens them at the end."""
    wanted: dict[str, list[str]] = {user: [] for user in "uvw"}
    n_clicks = 0

    def check(live: LiveInteractions) -> None:
        assert (live.position, {user: live.items_of(user) for user in "uvw"}) == (n_clicks, wanted)

    with using(Unflushed()), tempfile.TemporaryDirectory() as folder:
        with LiveInteractions.open(folder, create=True, compact_bytes=150) as live:
            reader = LiveInteractions.open(folder)
            for step in steps:
                match step:
                    case "close":
                        live.close()
                    case "compact":
                        live.compact()
                    case "refresh":
                        reader.refresh()
                        check(reader)
                    case "forget":
                        live.forget(n_clicks)
                        wanted = {user: [] for user in "uvw"}
                    case list():
                        n_clicks += len(step)
                        assert live.append(step) == n_clicks
                        for user, item in step:
                            wanted[user] = [*(one for one in wanted[user] if one != item), item]
                check(live)
            reader.refresh()
            check(reader)
        check(LiveInteractions.open(folder))
