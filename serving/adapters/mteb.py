"""Encoders as search models of MTEB, by its `SearchProtocol`; needs the extra `mteb`."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final
from weakref import finalize

from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.lsr.encoder import Encoder
from gossamer.serving.adapters.mteb_tasks import Run, meta_of, texts_of

_AT_ONCE: Final = 1_000


class EncoderSearch:
    """An encoder with an exact index of each corpus: `mteb.evaluate(EncoderSearch(load_encoder("encoder")), tasks)`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._folder = Path(mkdtemp(prefix="gossamer-mteb-"))
        finalize(self, rmtree, self._folder, ignore_errors=True)
        self.mteb_model_meta = meta_of(f"gossamer/{encoder.info.name}", encoder.info.fingerprint)

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
        ids, vectors = list(queries["id"]), self._encoder.encode_queries(texts_of(queries))
        if top_ranked is None:
            return self._index.search(vectors, top_k).to_run(ids)
        run: Run = {}
        for place, id_ in enumerate(ids):
            some = {"id": list(top_ranked.get(id_, ()))}
            run |= self._index.search(vectors[[place]], top_k, filters=some).to_run([id_])
        return run
