"""A service as a search model of MTEB, by its `SearchProtocol`; needs the extra `mteb`."""

from __future__ import annotations

from typing import Any, Final

from gossamer.kernels.errors import InputError
from gossamer.serving.adapters.mteb_tasks import Run, meta_of, texts_of
from gossamer.serving.client import Client

_AT_ONCE: Final = 1_000


class ServiceSearch:
    """A collection of a service, which has to be empty: each corpus is written to it, and deleted before the next.

    MTEB keeps results by `name` and `revision`: let them say what answers.
    """

    def __init__(self, client: Client, *, name: str, revision: str) -> None:
        self._client, self._version = client, ""
        self._written: list[str] = []
        self.mteb_model_meta = meta_of(f"gossamer/{name}", revision)

    def index(self, corpus: Any, **_: Any) -> None:
        """Write a corpus in place of the last."""
        for start in range(0, len(self._written), _AT_ONCE):
            self._client.delete(self._written[start : start + _AT_ONCE])
        self._written = list(corpus["id"])
        parts = ("id", "title", "text")
        report = self._client.put_many({name: row[name] for name in parts if row.get(name)} for row in corpus)
        if report.n_refused:
            first = report.refused[0]
            raise InputError(
                f"{report.n_refused} documents were refused, such as {first.id!r}: {first.message}"
            )
        self._version = report.version

    def search(self, queries: Any, *, top_k: int, top_ranked: Any = None, **_: Any) -> Run:
        """As that of `EncoderSearch`."""
        run: Run = {}
        for id_, text in zip(queries["id"], texts_of(queries), strict=True):
            some = {} if top_ranked is None else {"id": list(top_ranked.get(id_, ()))}
            found = self._client.search(
                text, k=top_k, filters=some, explain=False, min_version=self._version or None
            )
            run[id_] = {hit.id: hit.score for hit in found.hits}
        return run
