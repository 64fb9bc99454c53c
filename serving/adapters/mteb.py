"""Encoders and services as search models of MTEB, by its `SearchProtocol`; needs the extra `mteb`."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final
from weakref import finalize

from mteb.models import ModelMeta

from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.lsr.encoder import Encoder
from gossamer.serving.client import Client

_AT_ONCE: Final = 1_000
Run = dict[str, dict[str, float]]


class EncoderSearch:
    """An encoder with an exact index of each corpus: `mteb.evaluate(EncoderSearch(load_encoder("encoder")), tasks)`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._folder = Path(mkdtemp(prefix="gossamer-mteb-"))
        finalize(self, rmtree, self._folder, ignore_errors=True)
        self.mteb_model_meta = _meta(f"gossamer/{encoder.info.name}", encoder.info.fingerprint)

    def index(self, corpus: Any, **_: Any) -> None:
        """Encode a corpus, and index it in place of the last."""
        parts = [SparseVectors.from_dicts([], self._encoder.n_terms, ids=[])]
        for rows in corpus.iter(batch_size=_AT_ONCE):
            titles = rows.get("title") or [None] * len(rows["id"])
            pairs = zip(titles, rows["text"], strict=True)
            texts = [f"{title or ''} {text}".strip() for title, text in pairs]
            parts.append(self._encoder.encode_documents(texts).with_ids(rows["id"]))
        path, info = self._folder / "index", self._encoder.info
        self._index = InvertedIndex.build(path, SparseVectors.concat(parts), encoder=info, replace=True)

    def search(self, queries: Any, *, top_k: int, top_ranked: Any = None, **_: Any) -> Run:
        """The hits of each query by its id; where MTEB names the documents to rank, of those."""
        ids, vectors = list(queries["id"]), self._encoder.encode_queries(_texts(queries))
        if top_ranked is None:
            return self._index.search(vectors, top_k).to_run(ids)
        run: Run = {}
        for place, id_ in enumerate(ids):
            some = {"id": list(top_ranked.get(id_, ()))}
            run |= self._index.search(vectors[[place]], top_k, filters=some).to_run([id_])
        return run


class ServiceSearch:
    """A collection of a service, which has to be empty: each corpus is written to it, and deleted before the next.

    MTEB keeps results by `name` and `revision`: let them say what answers.
    """

    def __init__(self, client: Client, *, name: str, revision: str) -> None:
        self._client, self._version = client, ""
        self._written: list[str] = []
        self.mteb_model_meta = _meta(f"gossamer/{name}", revision)

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
        for id_, text in zip(queries["id"], _texts(queries), strict=True):
            some = {} if top_ranked is None else {"id": list(top_ranked.get(id_, ()))}
            found = self._client.search(
                text, k=top_k, filters=some, explain=False, min_version=self._version or None
            )
            run[id_] = {hit.id: hit.score for hit in found.hits}
        return run


def _meta(name: str, revision: str) -> Any:
    return ModelMeta.create_empty({"name": name, "revision": revision, "model_type": ["sparse"]})


def _texts(queries: Any) -> list[str]:
    """The queries, each with its instruction, if it has one."""
    texts = list(queries["text"])
    if not all(isinstance(text, str) for text in texts):
        raise InputError("the queries of this task are conversations: only those of one text are known here")
    if "instruction" not in queries.column_names:
        return texts
    pairs = zip(texts, queries["instruction"], strict=True)
    return [f"{text} {instruction}" if instruction else text for text, instruction in pairs]
