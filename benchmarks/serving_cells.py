"""The cells of `serving.py`: what a running service answers, and what it keeps when it is killed."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collection import Collection
from first_rows import DATA, first_vectors, scratch
from loading import load, ours, resident_mb, served, theirs

from gossamer.index.format import EncoderInfo
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ServiceError
from gossamer.lsr.backbone import BackboneConfig, lexical_start
from gossamer.lsr.encoder import EncoderConfig, SparseEncoder
from gossamer.serving.client import Client

K = 10
SEARCH = "/collections/default/search"
_N_QUERIES = 1_000


def answers(
    *, kind: str, batching: bool, clients: Sequence[int], seconds: float, **of: Any
) -> dict[str, Any]:
    """Load a service with single queries.

    Args:
        kind: `vector`, sent as one; `table`, words weighted by a table; `neural`, words through a transformer.
        batching: whether queries that wait are answered together.
        clients: numbers of clients, one after the other.
        seconds: for each.
        of: the collection; see `_found`.

    Returns:
        `rows`: one for each number of clients.
    """
    found, n_documents = _found(**of)
    bodies = _bodies(found.queries, kind)
    rows = []
    with _service(found, n_documents, kind, batching=batching) as (url, _):
        load(url, SEARCH, bodies, clients=2, seconds=min(seconds, 2.0))
        for count in clients:
            seen = load(url, SEARCH, bodies, clients=count, seconds=seconds)
            rows.append({"clients": count, **seen.row()})
    return {"rows": rows}


def overhead(collection: str, real: str, n_documents: int, runs: int) -> dict[str, Any]:
    """Ask the same queries, one after the other, of the engine in this process and of a service, in turn.

    Returns:
        ms at p50 of either, and what HTTP adds.
    """
    from gossamer.serving.engine import Engine
    from gossamer.serving.settings import ServeSettings

    found = Collection.find(collection, Path(real), DATA)
    with _service(found, n_documents, "vector") as (url, _), Client(url) as client:
        engine = Engine.open(ServeSettings(index=_index(found, n_documents, "vector"), batch_wait_ms=None))
        asked = [_vector(found.queries, row) for row in range(min(found.queries.n_rows, 300))]
        ways: dict[str, Callable[[Any], object]] = {
            "engine": lambda vector: engine.search(vectors={"search": vector}, k=K, explain=False),
            "client": lambda vector: client.search(vectors={"search": vector}, k=K, explain=False),
        }
        times: dict[str, list[float]] = {way: [] for way in (*ways, "wire")}
        bodies = _bodies(found.queries, "vector")[:300]
        for _ in range(runs):
            for way, ask in ways.items():
                for vector in asked:
                    began = time.perf_counter()
                    ask(vector)
                    times[way].append(time.perf_counter() - began)
            wire = load(url, SEARCH, bodies, clients=1, seconds=1.0)
            times["wire"] += wire.times_s
        p50 = {way: float(np.median(several[len(several) // 4 :])) * 1e3 for way, several in times.items()}
        return {
            "engine p50 ms": p50["engine"],
            "HTTP p50 ms": p50["wire"],
            "added ms": p50["wire"] - p50["engine"],
            "our client p50 ms": p50["client"],
        }


def meanwhile(collection: str, real: str, n_documents: int, seconds: float) -> dict[str, Any]:
    """Ask by 8 clients while documents are written, merged, and the index is swapped for another.

    Returns:
        `rows`: one for each of these.
    """
    found = Collection.find(collection, Path(real), DATA)
    bodies = _bodies(found.queries, "vector")
    rows = []
    with _copied(found, n_documents) as index, _started(index, None) as (url, _):
        load(url, SEARCH, bodies, clients=8, seconds=min(2.0, seconds))
        rows.append({"meanwhile": "nothing", **load(url, SEARCH, bodies, clients=8, seconds=seconds).row()})
        acts: dict[str, Callable[..., None]] = {"ingest, with merges": _write_until, "swap": _swap_until}
        for what, act in acts.items():
            stop, done = threading.Event(), [0]
            thread = threading.Thread(target=act, args=(url, found, stop, done))
            thread.start()
            row = load(url, SEARCH, bodies, clients=8, seconds=seconds).row()
            stop.set()
            thread.join()
            rows.append({"meanwhile": what, **row, "done": done[0]})
    return {"rows": rows}


def mixed(collection: str, real: str, n_documents: int, seconds: float) -> dict[str, Any]:
    """Read by 8 clients and write by one, for long.

    Returns:
        Answers, writes, errors, and memory that is no file's, in MB: after a tenth of the time, after half, at the end.
    """
    found = Collection.find(collection, Path(real), DATA)
    bodies = _bodies(found.queries, "vector")
    with _copied(found, n_documents) as index, _started(index, None) as (url, process):
        stop, done = threading.Event(), [0]
        thread = threading.Thread(target=_write_until, args=(url, found, stop, done, 0.05))
        thread.start()
        memory, errors, n_answers = [], 0, 0
        for share in (0.1, 0.4, 0.5):
            seen = load(url, SEARCH, bodies, clients=8, seconds=share * seconds)
            row = seen.row()
            errors += row["errors"]
            n_answers += len(seen.times_s)
            memory.append(resident_mb(process.pid))
        stop.set()
        thread.join()
        return {
            "seconds": seconds,
            "answers": n_answers,
            "writes": done[0],
            "errors": errors,
            "p99 ms": row["p99 ms"],
            **{f"MB after {share:.0%}": mb for share, mb in zip((0.1, 0.5, 1.0), memory, strict=True)},
        }


def kills(n_kills: int, seed: int) -> dict[str, Any]:
    """Kill a service at random moments while it is written to; start it again, and look for what it acknowledged.

    Returns:
        Acknowledged writes, how many of them were lost, and seconds until it is ready again.
    """
    draw = np.random.default_rng(seed)
    acknowledged: dict[str, float] = {}
    n_lost, ready_s = 0, []
    with scratch() as folder:
        index = folder / "index"
        InvertedIndex.build(index, SparseVectors.from_dicts([], 64, ids=[]))
        for _ in range(n_kills):
            with _started(index, None) as (url, process):
                _write_until_killed(url, process, acknowledged, draw)
            began = time.perf_counter()
            with _started(index, None) as (url, process), Client(url) as client:
                ready_s.append(time.perf_counter() - began)
                n_lost += sum(not _has(client, id_, value) for id_, value in acknowledged.items())
    return {
        "kills": n_kills,
        "acknowledged": len(acknowledged),
        "lost": n_lost,
        "s until ready": float(np.median(ready_s)),
    }


def beside(engine: str, corpus: str, limit: int, clients: Sequence[int], seconds: float) -> dict[str, Any]:
    """Ask for words in texts: of ours, by its BM25 encoder, and of forty lines of FastAPI and bm25s.

    Returns:
        `rows`: one for each number of clients.
    """
    from gossamer.lsr.bm25 import Bm25Encoder

    with scratch() as folder:
        lines = Path(corpus).read_text(encoding="utf-8").splitlines()[:limit]
        (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        documents = [json.loads(line) for line in lines]
        texts = [f"{document.get('title', '')} {document['text']}" for document in documents]
        queries = [document["text"] for document in documents[:: max(1, len(documents) // _N_QUERIES)]]
        if engine == "ours":
            encoder = Bm25Encoder.fit(texts)
            encoder.save(folder / "encoder")
            ids = [document["_id"] for document in documents]
            table = {
                "id": ids,
                "title": [document.get("title", "") for document in documents],
                "text": [document["text"] for document in documents],
            }
            import pyarrow as pa

            vectors = encoder.encode_documents(texts).with_ids(ids)
            InvertedIndex.build(folder / "index", vectors, documents=pa.table(table), encoder=encoder.info)
            settings = {"index": str(folder / "index"), "encoder": str(folder / "encoder")}
            command, path = ours, SEARCH
            bodies = [json.dumps({"query": query, "k": K, "explain": False}).encode() for query in queries]
        else:
            settings = {"corpus": str(folder / "corpus.jsonl")}
            command, path = theirs, "/search"
            bodies = [json.dumps({"query": query, "k": K}).encode() for query in queries]
        with served(command, settings) as (url, process):
            load(url, path, bodies, clients=2, seconds=min(seconds, 2.0))
            rows = [
                {"clients": count, **load(url, path, bodies, clients=count, seconds=seconds).row()}
                for count in clients
            ]
            return {"documents": len(documents), "rows": rows, "MB": resident_mb(process.pid)}


# -- what the cells share ----------------------------------------------------------------------------


def _found(collection: str, real: str, n_documents: int) -> tuple[Collection, int]:
    return Collection.find(collection, Path(real), DATA), n_documents


@contextmanager
def _service(
    found: Collection, n_documents: int, kind: str, *, batching: bool = True
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    encoder = None if kind == "vector" else _encoder(kind)
    with _started(_index(found, n_documents, kind), encoder, batching=batching) as running:
        yield running


@contextmanager
def _started(
    index: Path, encoder: Path | None, *, batching: bool = True
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    settings: dict[str, Any] = {"index": str(index)}
    if encoder is not None:
        settings["encoder"] = str(encoder)
    if not batching:
        settings["limits.max_batch"] = 1
    with served(ours, settings) as running:
        yield running


def _index(found: Collection, n_documents: int, kind: str) -> Path:
    """An index of the first documents, kept for other cells."""
    path = DATA / f"serving-{found.name}-{n_documents}-{kind}"
    if not (path / "manifest.json").exists():
        info: EncoderInfo | None = None
        if kind != "vector":
            from gossamer.lsr.formats import load_encoder

            info = load_encoder(_encoder(kind)).info
        InvertedIndex.build(
            path,
            first_vectors(found, n_documents),
            encoder=info,
            config=BuildConfig(calibrate=False),
            replace=True,
        )
    return path


def _encoder(kind: str) -> Path:
    """An encoder whose words are the vocabulary's numbers; untrained, of the size of a small one."""
    path = DATA / f"serving-encoder-{kind}"
    if not path.is_dir():
        tokenizer = _tokenizer()
        model = lexical_start(BackboneConfig(layers=2, width=128, heads=2, mlp_width=512), tokenizer)
        table = torch.ones(len(tokenizer)) if kind == "table" else None
        config = EncoderConfig(query="table" if kind == "table" else "mlm")
        SparseEncoder(model, tokenizer, config, table, name=kind).save(path)
    return path


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = [*special, *(f"t{number}" for number in range(len(special), 30_522))]
    tokenizer = Tokenizer(
        models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    keys = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(keys, special, strict=True)))


def _vector(queries: SparseVectors, row: int) -> dict[str, Any]:
    terms, weights = queries.row(row)
    return {"terms": terms.tolist(), "weights": weights.astype(float).tolist()}


def _bodies(queries: SparseVectors, kind: str) -> list[bytes]:
    """Requests for single queries; words are the numbers of their terms."""
    bodies = []
    for row in range(min(queries.n_rows, _N_QUERIES)):
        vector = _vector(queries, row)
        request: dict[str, Any] = {"k": K, "explain": False}
        if kind == "vector":
            request["vectors"] = {"search": vector}
        else:
            request["query"] = " ".join(f"t{term}" for term in vector["terms"])
        bodies.append(json.dumps(request).encode())
    return bodies


@contextmanager
def _copied(found: Collection, n_documents: int) -> Iterator[Path]:
    """A copy of an index, to be changed."""
    import shutil

    with scratch() as folder:
        shutil.copytree(_index(found, n_documents, "vector"), folder / "index")
        yield folder / "index"


def _write_until(
    url: str, found: Collection, stop: threading.Event, done: list[int], pause_s: float = 0.0
) -> None:
    """Write ten documents a request, some of them again and again, and delete some."""
    with Client(url) as client:
        number = 0
        while not stop.wait(pause_s):
            documents = [
                {
                    "id": f"new{(number + n) % 5_000}",
                    "vectors": {"search": _vector(found.queries, (number + n) % 100)},
                }
                for n in range(10)
            ]
            client.put(documents)
            if number % 50 == 0:
                client.delete([f"new{number % 5_000}"])
            number += 10
            done[0] += 1


def _swap_until(url: str, _: Collection, stop: threading.Event, done: list[int]) -> None:
    with Client(url, timeout_s=60) as client:
        while not stop.wait(0.2):
            client.reload()
            done[0] += 1


def _write_until_killed(
    url: str, process: subprocess.Popen[bytes], acknowledged: dict[str, float], draw: np.random.Generator
) -> None:
    """Four clients write documents, one a request; a moment after the first answer the service is killed."""
    answered = threading.Event()

    def write(name: str) -> None:
        with Client(url, retries=0) as client:
            for number in range(10**9):
                id_, value = f"{name}-{number % 20}", float(number % 90 + 1)
                vectors = {"search": {"terms": [1], "weights": [value]}}
                try:
                    client.put([{"id": id_, "vectors": vectors, "metadata": {"value": value}}])
                except ServiceError:
                    acknowledged.pop(id_, None)  # whether this one was written nobody knows
                    return
                acknowledged[id_] = value
                answered.set()

    names = [f"d{draw.integers(2**30)}" for _ in range(4)]
    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    answered.wait(60)
    time.sleep(float(draw.uniform(0.0, 0.5)))
    process.send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join()


def _has(client: Client, id_: str, value: float) -> bool:
    from gossamer.kernels.errors import NotFoundError

    try:
        return client.get(id_).metadata["value"] == value
    except NotFoundError:
        return False
