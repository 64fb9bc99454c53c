"""Makes the golden indexes of the format's version as it is: `python tests/golden/make.py`.

Run once for a version and committed; never again for the same one, as it is old folders that later versions must read.
An inverted and a dense index of 40 documents, with all that a folder may hold: two segments, one of them merged, with
gaps in its insertion numbers, deleted documents, texts and metadata, weights as given, a curve. Beside each stands
what it answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gossamer.index.dense import DenseIndex
from gossamer.index.dense_config import DenseConfig
from gossamer.index.dense_vectors import DenseVectors
from gossamer.index.format import VERSION, EncoderInfo
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors

HERE = Path(__file__).parent
ENCODER = EncoderInfo("golden", "0" * 16, "1" * 16)


def sparse(first: int, last: int) -> SparseVectors:
    """Rows whose weights follow from their numbers."""
    rows = [
        {term: 1 + (number * 7 + term) % 13 / 4 for term in range(30) if (number + term * term) % 5 == 0}
        for number in range(first, last)
    ]
    return SparseVectors.from_dicts(rows, 30, ids=names(first, last))


def dense(first: int, last: int) -> DenseVectors:
    """Likewise."""
    values = [[(number * 3 + place * 5) % 11 - 5 for place in range(6)] for number in range(first, last)]
    return DenseVectors(
        np.array(values, np.float32).reshape(-1, 6), pa.array(names(first, last), pa.string())
    )


def names(first: int, last: int) -> list[str]:
    return [f"d{number}" for number in range(first, last)]


def documents(first: int, last: int) -> pa.Table:
    numbers = range(first, last)
    return pa.table(
        {
            "id": names(first, last),
            "title": [f"title {number}" for number in numbers],
            "text": [f"text {number}" for number in numbers],
            "year": [2000 + number % 5 for number in numbers],
        }
    )


def answers(index: Any, queries: Any) -> dict[str, Any]:
    """What is compared: hits of three queries, by ids and scores, and what there is."""
    hits = index.search(queries, 5)
    live = np.flatnonzero(index.documents.live)
    return {
        "hits": [[[name, round(score, 4)] for name, score in hits.of(number)] for number in range(3)],
        "ids": index.documents.take(live)["id"].to_pylist(),
        "numbers": index.insertion_numbers(live).tolist(),
        "years": int(index.documents.mask({"year": {">=": 2003}}).sum()),
        "encoder": index.encoder.fingerprint,
    }


def main() -> None:
    kinds: list[tuple[str, Any, Any, Any]] = [
        ("inverted", InvertedIndex, sparse, None),
        ("dense", DenseIndex, dense, DenseConfig()),
    ]
    for kind, cls, vectors, config in kinds:
        path = HERE / f"{kind}-{VERSION}"
        shutil.rmtree(path, ignore_errors=True)
        index = cls.build(path, vectors(0, 20), documents=documents(0, 20), config=config, encoder=ENCODER)
        index.delete(["d3", "d7"])
        index.add(vectors(20, 30), documents=documents(20, 30))
        index.merge(1)
        index.add(vectors(30, 40), documents=documents(30, 40))
        index.delete(["d12", "d33"])
        if kind == "inverted":
            index.calibrate()
        for lock in path.glob("*.lock"):
            lock.unlink()
        found = answers(index, vectors(100, 103) if kind == "inverted" else vectors(100, 103).values)
        (HERE / f"{kind}-{VERSION}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
