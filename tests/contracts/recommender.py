"""What every recommender must do. A new one inherits `RecommenderContract` and says how to make one from a log.

The log is a checkerboard: even users take even items, odd users odd ones, and each user has missed one item of their
colour. So the right answer is plain to see.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gossamer.kernels.errors import ExistsError, FormatError, InputError, NotFoundError
from gossamer.recsys import Interactions, Recommender

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
        """A recommender trained on the log, in this folder, with popularity by `colour`."""

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

    def test_folders_are_guarded(self, recommender: Recommender, log: Interactions, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no recommender at"):
            Recommender.open(tmp_path / "none")
        vectors: dict[str, Any] = {"users": recommender.user_vectors, "items": recommender.items.vectors()}
        with pytest.raises(ExistsError):
            Recommender.build(recommender.path, **vectors, interactions=log)
        with pytest.raises(InputError, match="pass the log"):
            Recommender.build(tmp_path / "x", **vectors | {"users": vectors["users"][:3]}, interactions=log)
        copy = Recommender.build(tmp_path / "copy", **vectors, interactions=log, group="colour")
        assert np.array_equal(copy.rank(np.arange(N), k=2)[0], recommender.rank(np.arange(N), k=2)[0])
        (tmp_path / "copy" / "centre.npy").write_bytes(b"")
        with pytest.raises(FormatError, match=r"centre\.npy"):
            Recommender.open(tmp_path / "copy")
