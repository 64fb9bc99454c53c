"""What every recommender must do. A new one inherits `RecommenderContract` and says how to make one from a log.

The log is a checkerboard: even users take even items, odd users odd ones, and each user has missed one item of their
colour. So the right answer is plain to see. Items have a shelf, some none, and a price; filters and caps are judged by
going down the whole list in plain Python.
"""

import itertools
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    FormatError,
    InputError,
    NotFoundError,
    RecordError,
)
from gossamer.recsys import Interactions, LiveInteractions, Recommendation, Recommender

N = 16


def missed(user: int) -> int:
    """The one item of its colour that a user has not taken; never item 0 or 1, which all of a colour take."""
    return 2 + user % 2 + 2 * (user // 2 % (N // 2 - 1))


def checkerboard() -> Interactions:
    pairs = [(u, i) for u in range(N) for i in range(N) if u % 2 == i % 2 and i != missed(u)]
    return Interactions.from_table(
        pa.table(
            {
                "user": [f"user {u}" for u, _ in pairs],
                "item": [f"item {i}" for _, i in pairs],
                "colour": ["black" if u % 2 else "white" for u, _ in pairs],
            }
        )
    )


SHELVES = ["top", "middle", "low", None]


def shelf(item: int) -> str | None:
    return SHELVES[item // 2 % 4]


def documents() -> pa.Table:
    """Of all items and one more, in no order of the log."""
    items = [*range(N, -1, -1)]
    return pa.table(
        {
            "id": [f"item {i}" for i in items],
            "title": [f"Item number {i}" for i in items],
            "shelf": [shelf(i) for i in items],
            "price": [float("nan") if i == 3 else i / 4 // 1 for i in items],
        }
    )


def down_the_list(
    ranked: list[tuple[str, float]], taken: set[str], passing: set[str], most: int | None, column: str
) -> list[tuple[str, float]]:
    """What may be an answer, of all items in the order of their scores."""
    values = {row["id"]: row[column] for row in documents().to_pylist()}
    kept, had = [], Counter[Any]()
    for item, score in ranked:
        value = values[item]
        if item in taken or item not in passing or (most is not None and had[value] >= most):
            continue
        had[value] += value is not None and value == value  # no two missing values are equal
        kept.append((item, score))
    return kept


def pairs(answer: Recommendation) -> list[tuple[str, float]]:
    return list(zip(answer.item_ids, answer.scores, strict=True))


class RecommenderContract:
    @pytest.fixture(scope="class")
    @classmethod
    def log(cls) -> Interactions:
        return checkerboard()

    @pytest.fixture(scope="class")
    @classmethod
    def recommender(cls, log: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
        return cls.make(log, tmp_path_factory.mktemp("recommender") / "it")

    @classmethod
    @abstractmethod
    def make(cls, log: Interactions, path: Path) -> Recommender:
        """A recommender trained on the log, in this folder, with popularity by `colour`, and `documents()`."""

    def test_the_missing_item_comes_first(self, recommender: Recommender) -> None:
        for user in range(N):
            answer = recommender.recommend(user=f"user {user}", k=3)
            assert answer.item_ids[0] == f"item {missed(user)}"
            assert (answer.source, answer.unknown) == ("user", [])
            assert answer.scores == sorted(answer.scores, reverse=True)
            assert len(answer.item_ids) == len(answer.scores) <= 3

    def test_seen_items_are_left_out_unless_wanted(self, recommender: Recommender, log: Interactions) -> None:
        seen = {f"item {i}" for i in range(0, N, 2)} - {f"item {missed(0)}"}
        assert not seen & set(recommender.recommend(user="user 0", k=N).item_ids)
        with_seen = recommender.recommend(user="user 0", k=N // 2, exclude_seen=False).item_ids
        assert len(seen & set(with_seen)) >= N // 2 - 1

    def test_a_history_is_folded_in(self, recommender: Recommender) -> None:
        history = [f"item {i}" for i in range(1, N, 2) if i != 5]
        answer = recommender.recommend(history=history, k=1)
        assert (answer.item_ids, answer.source, answer.unknown) == (["item 5"], "history", [])
        assert set(recommender.recommend(history=history, k=3, exclude_seen=False).item_ids) & set(history)

    def test_unknown_items_of_a_history_are_named(self, recommender: Recommender) -> None:
        answer = recommender.recommend(history=["item 2", "nothing", "item 4"], k=3)
        assert (answer.source, answer.unknown) == ("history", ["nothing"])

    def test_whom_nothing_is_known_of_gets_popularity_and_is_told(self, recommender: Recommender) -> None:
        for answer, unknown in [
            (recommender.recommend(user="nobody", k=2), ["nobody"]),
            (recommender.recommend(history=["nothing"], k=2), ["nothing"]),
            (recommender.recommend(history=[], k=2), []),
        ]:
            assert (answer.source, answer.unknown) == ("popularity", unknown)
            assert set(answer.item_ids) == {"item 0", "item 1"}
            assert answer.scores == [N / 2, N / 2]
        black = recommender.recommend(user="nobody", k=1, group="black")
        assert (black.item_ids, black.source) == (["item 1"], "popularity")

    def test_a_batch_is_its_parts(self, recommender: Recommender) -> None:
        users = ["user 3", "nobody", "user 2", "user 3"]
        assert recommender.recommend_users(users, k=4) == [recommender.recommend(user=u, k=4) for u in users]
        histories = [["item 1", "item 3"], [], ["what"], ["item 4"]]
        assert recommender.recommend_histories(histories, k=4) == [
            recommender.recommend(history=h, k=4) for h in histories
        ]

    def test_filters_caps_and_what_is_seen_are_exact(self, recommender: Recommender) -> None:
        history = ["item 1", "item 3", "item 4"]
        askers: list[dict[str, Any]] = [{"user": "user 4"}, {"history": history}, {"user": "nobody"}]
        filters: list[tuple[dict[str, Any], set[str]]] = [
            ({}, {f"item {i}" for i in range(N)}),
            ({"shelf": ["top", "low"]}, {f"item {i}" for i in range(N) if shelf(i) in ("top", "low")}),
            ({"id": {"in": ["item 9", "item 2"]}}, {"item 9", "item 2"}),
            ({"price": {"<": 2}}, {f"item {i}" for i in range(8) if i != 3}),
            ({"shelf": "nowhere"}, set()),
        ]
        for asker, (given, passing), most, exclude_seen, column in itertools.product(
            askers, filters, [None, 1, 2, N], [True, False], ["shelf", "price"]
        ):
            all_items = pairs(recommender.recommend(**asker, k=N, exclude_seen=False))
            taken = set(history) if "history" in asker else _seen(recommender, asker["user"])
            wanted = down_the_list(all_items, taken if exclude_seen else set(), passing, most, column)
            options: dict[str, Any] = {"exclude_seen": exclude_seen, "filters": given}
            options |= {} if most is None else {"most_per": (column, most)}
            for k, offset in [(1, 0), (3, 0), (3, 2), (N, 0), (2 * N, 5), (4, N)]:
                found = recommender.recommend(**asker, **options, k=k, offset=offset)
                assert pairs(found) == wanted[offset : offset + k], (asker, options, k, offset)

    def test_a_batch_is_its_parts_with_filters_and_caps(self, recommender: Recommender) -> None:
        users = [f"user {u}" for u in range(N)] + ["nobody"]
        for options in ({"filters": {"price": {">": 0}}}, {"most_per": ("shelf", 1)}):
            apart = [recommender.recommend(user=user, k=5, **options) for user in users]
            assert recommender.recommend_users(users, k=5, **options) == apart
        histories = [["item 1"], ["item 2", "item 5"], []]
        apart = [recommender.recommend(history=h, k=5, filters={"shelf": "top"}) for h in histories]
        assert recommender.recommend_histories(histories, k=5, filters={"shelf": "top"}) == apart

    def test_items_have_their_documents(self, recommender: Recommender) -> None:
        stored = recommender.items.documents.take(np.arange(recommender.n_items)).to_pylist()
        assert [row["title"].rpartition(" ")[2] for row in stored] == [row["id"][5:] for row in stored]
        assert recommender.items.documents.metadata == ["shelf", "price"]

    def test_an_answer_says_why(self, recommender: Recommender) -> None:
        history = ["item 1", "item 3", "item 4", "item 7", "item 9"]
        answer = recommender.recommend(history=history, k=4, explain=True)
        assert answer.item_ids == recommender.recommend(history=history, k=4).item_ids
        for because in answer.because:
            weights = [weight for _, weight in because.items]
            assert because.kind == "history"
            assert {item for item, _ in because.items} <= set(history)
            assert weights == sorted(weights, reverse=True)
            assert len(weights) <= 3
            assert all(weight > 0 for weight in weights)
        assert answer.because[0].items[0][0] in {"item 1", "item 3", "item 7", "item 9"}
        known = recommender.recommend(user="user 0", k=1, explain=True).because[0]
        assert known.kind == "similar"
        assert {item for item, _ in known.items} <= _seen(recommender, "user 0")
        assert all(0 < cosine <= 1 for _, cosine in known.items)
        popular = recommender.recommend(user="nobody", group="white", k=2, explain=True).because
        assert [(b.kind, b.items, b.group) for b in popular] == [("popularity", (), "white")] * 2
        assert recommender.recommend(user="nobody", group="?", k=1, explain=True).because[0].group is None
        assert recommender.recommend(user="user 0").because == []

    def test_an_item_is_no_reason_for_itself(self, recommender: Recommender) -> None:
        for asker in ({"user": "user 1"}, {"history": ["item 1", "item 3"]}):
            answer = recommender.recommend(**asker, k=N, exclude_seen=False, explain=True)
            for item, because in zip(answer.item_ids, answer.because, strict=True):
                assert item not in dict(because.items)

    def test_similar_items_are_those_of_the_largest_cosine(self, recommender: Recommender) -> None:
        rows = recommender.items.vectors().to_scipy().toarray().astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        names = recommender.items.vectors().ids.to_pylist()  # type: ignore[union-attr]
        for item in (0, 5):
            found = recommender.similar(f"item {item}", N)
            cosines = dict(zip(names, rows @ rows[names.index(f"item {item}")], strict=True))
            assert f"item {item}" not in found.item_ids
            assert found.scores == sorted(found.scores, reverse=True)
            assert found.scores == pytest.approx([cosines[other] for other in found.item_ids], abs=0.02)
            ranked = list(zip(found.item_ids, found.scores, strict=True))
            passing = {f"item {i}" for i in range(N) if i >= 4}
            few = recommender.similar(
                f"item {item}", 3, offset=1, filters={"price": {">=": 1}}, most_per=("shelf", 1)
            )
            wanted = down_the_list(ranked, set(), passing, 1, "shelf")[1:4]
            assert list(zip(few.item_ids, few.scores, strict=True)) == wanted
        with pytest.raises(NotFoundError, match="no item 'item 99'"):
            recommender.similar("item 99")

    def test_scores_of_some_items_are_those_of_the_answer(self, recommender: Recommender) -> None:
        for asker in ({"user": "user 2"}, {"history": ["item 4", "what", "item 8"]}):
            answer = recommender.recommend(**asker, k=N, exclude_seen=False)
            items = [*answer.item_ids[::-1], "nothing", answer.item_ids[0]]
            scores = recommender.scores_for(items, **asker)
            assert scores.dtype == np.float32
            assert np.isnan(scores[-2])
            assert [*scores[:-2], scores[-1]] == [*answer.scores[::-1], answer.scores[0]]
            absent = [f"item {i}" for i in range(N) if f"item {i}" not in answer.item_ids]
            assert not recommender.scores_for(absent, **asker).any()
        nobodies: list[dict[str, Any]] = [{"user": "nobody"}, {"history": []}, {"history": ["what"]}]
        for nobody in nobodies:
            assert np.isnan(recommender.scores_for(["item 1", "x"], **nobody)).all()
        assert recommender.scores_for([], user="user 2").shape == (0,)

    def test_new_clicks_change_the_next_answer(self, recommender: Recommender, tmp_path: Path) -> None:
        with LiveInteractions.open(tmp_path / "live", create=True) as live:
            before = recommender.recommend(user="user 0", k=3, live=live)
            assert before == recommender.recommend(user="user 0", k=3)
            live.append([("user 0", "item 2"), ("user 0", before.item_ids[0]), ("user 0", "new thing")])
            after = recommender.recommend(user="user 0", k=3, live=live)
            assert before.item_ids[0] not in after.item_ids
            assert (after.source, after.unknown) == ("history", ["new thing"])
            everything = sorted(_seen(recommender, "user 0") | {before.item_ids[0]})
            assert after.item_ids == recommender.recommend(history=everything, k=3).item_ids
            assert (
                before.item_ids[0]
                in recommender.recommend(user="user 0", k=N, live=live, exclude_seen=False).item_ids
            )
            scores = recommender.scores_for(after.item_ids, user="user 0", live=live)
            assert scores.tolist() == after.scores

            live.append([("stranger", "item 3"), ("stranger", "item 5"), ("odd", "new thing")])
            stranger = recommender.recommend(user="stranger", k=3, live=live)
            assert stranger == recommender.recommend(history=["item 3", "item 5"], k=3)
            odd = recommender.recommend(user="odd", k=3, live=live)
            assert (odd.source, odd.unknown) == ("popularity", ["new thing"])
            live.append([("user 4", "item 0")])  # which that user took before
            assert recommender.recommend(user="user 4", live=live).source == "user"
            users = ["user 0", "stranger", "nobody", "user 3"]
            apart = [recommender.recommend(user=user, live=live) for user in users]
            assert recommender.recommend_users(users, live=live) == apart

    def test_opened_again_it_answers_the_same(self, recommender: Recommender) -> None:
        again = Recommender.open(recommender.path)
        for question in ({"user": "user 7"}, {"history": ["item 4", "item 8"]}, {"user": "nobody"}):
            assert again.recommend(**question) == recommender.recommend(**question)

    def test_bad_questions_are_refused(self, recommender: Recommender) -> None:
        with pytest.raises(InputError, match="either user or history"):
            recommender.recommend()
        with pytest.raises(InputError, match="either user or history"):
            recommender.recommend(user="user 1", history=["item 1"])
        with pytest.raises(InputError, match="at least 1"):
            recommender.recommend(user="user 1", k=0)
        with pytest.raises(InputError, match="offset is -1"):
            recommender.recommend(user="user 1", offset=-1)
        with pytest.raises(InputError, match="at least 1"):
            recommender.similar("item 1", most_per=("shelf", 0))
        with pytest.raises(ConfigError, match="no metadata column 'shelv'; did you mean 'shelf'"):
            recommender.recommend(user="nobody", most_per=("shelv", 1))
        with pytest.raises(ConfigError, match="did you mean 'price'"):
            recommender.recommend(user="nobody", filters={"prise": 1})
        with pytest.raises(InputError, match="either user or history"):
            recommender.scores_for(["item 1"])

    def test_folders_are_guarded(self, recommender: Recommender, log: Interactions, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no recommender at"):
            Recommender.open(tmp_path / "none")
        vectors: dict[str, Any] = {"users": recommender.user_vectors, "items": recommender.items.vectors()}
        with pytest.raises(ExistsError):
            Recommender.build(recommender.path, **vectors, interactions=log)
        with pytest.raises(InputError, match="pass the log"):
            Recommender.build(tmp_path / "x", **vectors | {"users": vectors["users"][:3]}, interactions=log)
        some = documents()
        for wrong, said in [
            (some.slice(3), "2 of 16 items have no document, such as 'item 1[45]'"),
            (pa.concat_tables([some, some.slice(2, 1)]), "'item 14' is given to row 2 and row 17"),
            (some.drop_columns(["id"]), "no column 'id'"),
            ([some.to_batches()[0], some.select(["id"]).to_batches()[0]], "give all one schema"),
        ]:
            with pytest.raises(RecordError, match=said):
                Recommender.build(tmp_path / "x", **vectors, interactions=log, item_documents=wrong)
        assert not (tmp_path / "x").exists()
        copy = Recommender.build(tmp_path / "copy", **vectors, interactions=log, group="colour")
        assert np.array_equal(copy.rank(np.arange(N), k=2)[0], recommender.rank(np.arange(N), k=2)[0])
        (tmp_path / "copy" / "centre.npy").write_bytes(b"")
        with pytest.raises(FormatError, match=r"centre\.npy"):
            Recommender.open(tmp_path / "copy")


def _seen(recommender: Recommender, user: str) -> set[str]:
    row = int(recommender.users.rows_of([user])[0])
    if row < 0:
        return set()
    return set(recommender.items.documents.take(recommender.seen(row))["id"].to_pylist())
