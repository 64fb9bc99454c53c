"""What whoever answers searches and recommendations must do: in this process or over HTTP, the same."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel

from gossamer.kernels.errors import InputError, NotFoundError, TooLargeError
from gossamer.serving import Client, Engine
from gossamer.serving.records import Stored

Answering: TypeAlias = Engine | Client  # or an `AsyncClient`, awaited


def untimed(answer: BaseModel) -> dict[str, Any]:
    """The answer, but for what differs from one index of the same documents to another."""
    varying = {"took_ms": True, "times_ms": True, "version": True}
    return answer.model_dump(exclude={**varying, "results": {"__all__": varying}})


def refusal(call: Callable[[], object]) -> tuple[type[Exception], str]:
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("nothing was refused")


class EngineContract:
    """Inherit, and say who answers.

    The `tiny_engine` behind it serves `tests/serving/conftest.py`'s collection, with limits that are easily reached.
    """

    @pytest.fixture
    @abstractmethod
    def answering(self) -> Answering: ...

    # -- search

    def test_finds_the_document_that_says_it(self, answering: Answering) -> None:
        hits = answering.search("join path segments").hits
        assert hits[0].id == "os.path.join"
        assert hits[0].title == "join(a, *paths)"
        assert hits[0].text.startswith("Join one or more path segments")
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_matches_say_where_the_score_comes_from(self, answering: Answering) -> None:
        for hit in answering.search("sorted list of path segments").hits:
            assert hit.matches
            for match in hit.matches:
                assert match.contribution == pytest.approx(
                    match.query_weight * match.document_weight, rel=1e-6
                )
            assert math.fsum(match.contribution for match in hit.matches) == pytest.approx(
                hit.score, rel=1e-6
            )
            contributions = [match.contribution for match in hit.matches]
            assert contributions == sorted(contributions, reverse=True)

    def test_expansion_is_the_querys_terms_heaviest_first(self, answering: Answering) -> None:
        expansion = answering.search("path path list").expansion
        assert [(term.term, term.weight) for term in expansion] == [("path", 2.0), ("list", 1.0)]

    def test_explains_only_when_asked(self, answering: Answering) -> None:
        plain, told = answering.search("list", explain=False), answering.search("list")
        assert plain.expansion == []
        assert all(hit.matches == [] for hit in plain.hits)
        assert [(hit.id, hit.score) for hit in plain.hits] == [(hit.id, hit.score) for hit in told.hits]

    @pytest.mark.parametrize("query", ["", " ", "zzzunknown", "😀"])
    def test_a_query_without_known_terms_finds_nothing(self, answering: Answering, query: str) -> None:
        assert untimed(answering.search(query)) == {
            "hits": [],
            "expansion": [],
            "degraded": [],
        }

    def test_k_is_the_most_that_comes_back(self, answering: Answering) -> None:
        assert len(answering.search("list", k=1).hits) == 1
        whole = answering.search("list", k=50).hits
        assert 1 < len(whole) < 50

    def test_filters_by_one_value_by_several_and_by_several_columns(self, answering: Answering) -> None:
        def kinds(**filters: Any) -> set[Any]:
            return {hit.metadata["kind"] for hit in answering.search("list", k=50, filters=filters).hits}

        assert kinds() == {"function", "method", "class"}
        assert kinds(kind="class") == {"class"}
        assert kinds(kind=["class", "method"]) == {"class", "method"}
        assert kinds(kind="class", since=1) == set()

    @pytest.mark.parametrize(
        ("filters", "passes"),
        [
            ({"since": {">=": 2}}, lambda hit: (hit.metadata["since"] or 0) >= 2),
            ({"since": {">": 0, "<": 2}}, lambda hit: hit.metadata["since"] == 1),
            ({"not": {"since": {"<": 2}}}, lambda hit: hit.metadata["since"] in (2, None)),
            ({"share": {"<=": 1}}, lambda hit: hit.metadata["share"] is not None),
            ({"id": ["list", "sorted", "nobody"]}, lambda hit: hit.id in ("list", "sorted")),
            ({"id": {"in": ("list",)}, "kind": {"==": "method"}}, lambda hit: False),
            (
                {"or": [{"kind": "class"}, {"and": ({"since": {"in": {1}}}, {"not": {"id": "list.sort"}})}]},
                lambda hit: (
                    hit.metadata["kind"] == "class" or (hit.metadata["since"] == 1 and hit.id != "list.sort")
                ),
            ),
            ({}, lambda hit: True),
            ({"and": []}, lambda hit: True),
            ({"or": []}, lambda hit: False),
        ],
    )
    def test_a_filtered_search_is_the_search_of_what_the_filter_leaves(
        self, answering: Answering, filters: dict[str, Any], passes: Callable[[Any], bool]
    ) -> None:
        whole = answering.search("list path order", k=50).hits
        assert {hit.metadata["kind"] for hit in whole} == {"function", "method", "class"}
        left = [hit for hit in whole if passes(hit)]
        for k in (1, 50):
            assert answering.search("list path order", k=k, filters=filters).hits == left[:k]

    def test_metadata_is_plain_json(self, answering: Answering) -> None:
        metadata = {hit.id: hit.metadata for hit in answering.search("list", k=50).hits}
        assert metadata["sorted"] == {"kind": "function", "since": 2, "public": True, "share": 0.5}
        assert metadata["list.sort"]["share"] is None  # NaN in the collection
        assert metadata["list"]["since"] is None  # missing in the collection

    def test_lists_documents_by_id_a_page_at_a_time(self, answering: Answering) -> None:
        found: list[Stored] = []
        after, n_pages = None, 0
        while n_pages == 0 or after is not None:
            page = answering.documents(k=3, after=after)
            found, after, n_pages = found + page.documents, page.next, n_pages + 1
            assert page.total == 8
        assert n_pages == 3
        ids = [one.id for one in found]
        assert ids == sorted(set(ids))
        assert len(ids) == 8
        assert found == [answering.get(id_) for id_ in ids]
        methods = answering.documents(filters={"kind": "method"})
        assert [one.id for one in methods.documents] == ["list.append", "list.sort"]
        assert (methods.total, methods.next) == (2, None)
        assert answering.documents(after="zzz").documents == []
        with pytest.raises(InputError, match="kin"):
            answering.documents(filters={"kin": "method"})

    def test_hits_have_the_fields_that_are_asked_for(self, answering: Answering) -> None:
        whole = answering.search("sorted list", snippet_chars=40).hits
        some = answering.search("sorted list", snippet_chars=40, fields=["title", "kind"]).hits
        assert some == [
            hit.model_copy(update={"text": "", "metadata": {"kind": hit.metadata["kind"]}}) for hit in whole
        ]
        assert answering.search("list", fields=[]).hits[0].metadata == {}
        with pytest.raises(InputError, match=r"fields: the documents have no 'knd'; did you mean 'kind'\?"):
            answering.search("list", fields=["knd"])

    def test_a_batch_answers_as_its_queries_alone(self, answering: Answering) -> None:
        queries = ["join path segments", "", "list"]
        batch = answering.search_batch(queries, k=3)
        assert [untimed(result) for result in batch.results] == [
            untimed(answering.search(query, k=3)) for query in queries
        ]
        assert answering.search_batch([]).results == []

    def test_facets_are_the_columns_with_few_values(self, answering: Answering) -> None:
        facets = {
            facet.column: {value.value: value.count for value in facet.values}
            for facet in answering.facets().facets
        }
        assert set(facets) == {"kind", "since", "public"}
        assert facets["kind"] == {"function": 5, "method": 2, "class": 1}
        assert facets["public"] == {True: 7, False: 1}

    # -- recommendations

    def test_recommends_to_a_known_user_what_is_new(self, answering: Answering) -> None:
        answer = answering.recommend(user="reader", k=2)
        assert answer.source == "user"
        assert answer.unknown == []
        assert [item.id for item in answer.items] == ["re", "json"]  # the taste of os and sys, which are seen
        assert [item.score for item in answer.items] == pytest.approx([0.9, 0.5], abs=0.01)

    def test_shows_seen_items_only_when_asked(self, answering: Answering) -> None:
        items = answering.recommend(user="reader", k=3, include_seen=True).items
        assert [item.id for item in items] == ["os", "sys", "re"]

    def test_recommends_from_a_history_and_names_what_it_does_not_know(self, answering: Answering) -> None:
        answer = answering.recommend(history=["math", "never.seen"], k=2)
        assert answer.source == "history"
        assert answer.unknown == ["never.seen"]
        assert [item.id for item in answer.items] == ["random", "statistics"]

    @pytest.mark.parametrize("whom", [{"user": "nobody"}, {"history": ["never.seen"]}, {"history": []}])
    def test_popularity_for_the_unknown_and_says_so(self, answering: Answering, whom: dict[str, Any]) -> None:
        answer = answering.recommend(**whom, k=2)
        assert answer.source == "popularity"
        assert {item.id: item.score for item in answer.items} == {"os": 2, "math": 2}  # users who took them
        assert answer.unknown == ([whom["user"]] if "user" in whom else whom["history"])

    # -- health

    def test_health_says_what_is_served(self, answering: Answering) -> None:
        health = answering.health()
        assert health.status == "ready"
        assert health.search is not None
        assert health.search.n_documents == 8
        assert health.search.encoder == "bm25"
        assert health.recommend is not None
        assert (health.recommend.n_users, health.recommend.n_items) == (3, 7)

    # -- equal to the engine in this process

    @pytest.mark.parametrize(
        "ask",
        [
            lambda engine: engine.search("sorted list of path segments", k=5),
            lambda engine: engine.search("list", filters={"kind": ("function", "class"), "public": True}),
            lambda engine: engine.search_batch(("list", "path"), k=2, explain=False),
            lambda engine: engine.recommend(user="reader"),
            lambda engine: engine.recommend(history=("os", "sys"), k=4, include_seen=True),
            lambda engine: engine.facets(),
            lambda engine: engine.health(),
        ],
    )
    def test_answers_as_the_engine_does(
        self, answering: Answering, tiny_engine: Engine, ask: Callable[[Any], BaseModel]
    ) -> None:
        assert untimed(ask(answering)) == untimed(ask(tiny_engine))

    @pytest.mark.parametrize(
        ("ask", "error", "names"),
        [
            (lambda engine: engine.search("list", k=0), InputError, "k"),
            (lambda engine: engine.search("list", k=True), InputError, "k"),
            (lambda engine: engine.search("list", k="10"), InputError, "k"),
            (lambda engine: engine.search("list", k=51), TooLargeError, "max_k"),
            (lambda engine: engine.search(None), InputError, "query"),
            (lambda engine: engine.search("\ud800"), InputError, "query"),
            (lambda engine: engine.search("x" * 201), TooLargeError, "max_query_chars"),
            (lambda engine: engine.search("list", filters={"kinds": "class"}), InputError, "kind"),
            (lambda engine: engine.search("list", filters={"since": "two"}), InputError, "since"),
            (lambda engine: engine.search("list", filters={"since": math.nan}), InputError, "since"),
            (lambda engine: engine.search("list", filters={"kind": None}), InputError, "kind"),
            (lambda engine: engine.search("list", filters=["kind"]), InputError, "filters"),
            (lambda engine: engine.search("list", filters=[]), InputError, "filters"),
            (
                lambda engine: engine.search("list", filters={"since": {"=>": 1}}),
                InputError,
                "'=>'; there are ==",
            ),
            (lambda engine: engine.search("list", filters={"since": {">=": "a"}}), InputError, "is int64"),
            (lambda engine: engine.search("list", filters={"public": {"<": True}}), InputError, "'public'"),
            (lambda engine: engine.search("list", filters={"id": 1}), InputError, "'id'"),
            (lambda engine: engine.search("list", filters={"or": {"kind": "class"}}), InputError, "'or'"),
            (lambda engine: engine.search("list", filters={"not": {"knid": "class"}}), InputError, "'kind'"),
            (lambda engine: engine.search("list", filters={"or": [{}] * 200}), InputError, "more than 128"),
            (lambda engine: engine.search("list", filters={"kind": "\ud800"}), InputError, "'kind'"),
            (lambda engine: engine.search("list", filters={"\ud800": "a"}), InputError, "filters"),
            (lambda engine: engine.search("list", filters={"since": 10**5_000}), InputError, "'since'"),
            (lambda engine: engine.search_batch("list"), InputError, "queries"),
            (lambda engine: engine.search_batch(["list"] * 5), TooLargeError, "max_batch"),
            (lambda engine: engine.recommend(), InputError, "user, history"),
            (lambda engine: engine.recommend(user="reader", history=["os"]), InputError, "user, history"),
            (lambda engine: engine.recommend(history="os"), InputError, "history"),
            (lambda engine: engine.recommend(history=["os"] * 9), TooLargeError, "max_history"),
            (lambda engine: engine.recommend(user="reader", k=51), TooLargeError, "max_k"),
        ],
    )
    def test_refuses_as_the_engine_does(
        self,
        answering: Answering,
        tiny_engine: Engine,
        ask: Callable[[Any], object],
        error: type[Exception],
        names: str,
    ) -> None:
        kind, message = refusal(lambda: ask(answering))
        local_kind, local_message = refusal(lambda: ask(tiny_engine))
        assert message == local_message
        assert names in message
        assert issubclass(local_kind, error)
        assert kind in (local_kind, error)  # over HTTP, a branch of the tree comes back as its stem

    def test_a_part_that_is_not_served_is_not_found(self, answering_nothing: Answering) -> None:
        with pytest.raises(NotFoundError, match="index"):
            answering_nothing.search("list")
        with pytest.raises(NotFoundError, match="recommender"):
            answering_nothing.recommend(user="reader")
        assert answering_nothing.facets().facets == []
        assert answering_nothing.health().search is None
        assert answering_nothing.health().recommend is None
