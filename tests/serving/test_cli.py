"""The command line: the whole road on a tiny collection, and what a mistake is answered with."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.index.measures import read_run
from gossamer.index.watching import Seen, Watch
from gossamer.kernels.errors import (
    ConfigError,
    CorruptError,
    ExistsError,
    FormatError,
    GossamerError,
    InputError,
    MismatchError,
    NotFoundError,
    RecordError,
)
from gossamer.serving.cli import app
from tests.lsr.tiny import START, write_collection

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Run:
    """Call a command; its output, or the error of ours that it raised."""
    runner = CliRunner()

    def call(*words: object) -> str:
        result = runner.invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        if isinstance(result.exception, GossamerError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("cli") / "animals")


@pytest.fixture(scope="module")
def encoder(run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by the command, a few steps from a tiny start."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    backbone = START.backbone.model_dump()
    start = [("--start", f"backbone.{key}={json.dumps(backbone[key])}") for key in backbone]
    start += [("--start", f"vocabulary_size={START.vocabulary_size}")]
    start += [("--start", f"encoder.{key}=16") for key in ("max_query_tokens", "max_document_tokens")]
    options = [word for pair in start for word in pair]
    run("lsr", "train", data, folder, "--local", "--set", "steps=4", "--set", "batch_size=8", *options)
    assert (folder / "metrics.png").exists()
    return folder / "encoder"


@pytest.fixture(scope="module")
def index(run: Run, data: Path, encoder: Path) -> Path:
    vectors, folder = encoder.parent / "vectors", encoder.parent / "index"
    run("lsr", "encode", encoder, data, vectors, "--local")
    shown = run("index", "build", vectors, folder, "--documents", data, "--encoder", encoder)
    assert "documents" in shown
    assert "60" in shown
    return folder


def test_evaluate_prints_the_measures(
    run: Run, data: Path, encoder: Path, index: Path, tmp_path: Path
) -> None:
    words = ("lsr", "evaluate", encoder, data, "--index", index, "--set", 'measures=["RR@10"]')
    shown = run(*words, "--run", tmp_path / "x.trec")
    assert "RR@10" in shown
    assert "nDCG" not in shown
    again = json.loads(
        run("evaluate", "--run", tmp_path / "x.trec", "--qrels", data, "--json", "--measures", "RR@10")
    )
    assert again["n_queries"] == 60
    assert f"{again['runs'][0]['measures']['RR@10']:.4f}" in shown


def test_search_in_words_shows_the_documents(run: Run, encoder: Path, index: Path) -> None:
    shown = run("index", "search", index, "heron river", "--encoder", encoder, "-k", "3")
    assert "heron-river" in shown


def test_search_takes_a_filter(run: Run, encoder: Path, index: Path) -> None:
    words = ("index", "search", index, "heron river", "--encoder", encoder, "-k", "3", "--filter")
    assert "heron-river" in run(*words, '{"id": {"in": ["heron-river"]}}')
    assert "heron-river" not in run(*words, '{"not": {"id": "heron-river"}}')
    for text in ("", "id=heron", "{'id': 'heron'}", "[" * 100_000):
        with pytest.raises(ConfigError, match=r"--filter .* is no JSON .*; give it in quotes"):
            run(*words, text)
    with pytest.raises(InputError, match="is no filter"):
        run(*words, "[]")
    with pytest.raises(ConfigError, match="no metadata column 'ide' to filter by"):
        run(*words, '{"ide": "heron-river"}')


def test_search_with_vectors_writes_a_run(run: Run, index: Path, tmp_path: Path) -> None:
    vectors = SparseVectors.read_parquet(index.parent / "vectors")[0:4]
    vectors.write_parquet(tmp_path / "queries.parquet")
    run(
        "index",
        "search",
        index,
        "--vectors",
        tmp_path / "queries.parquet",
        "--run",
        tmp_path / "x.run",
        "-k",
        "5",
    )
    found = read_run(tmp_path / "x.run")
    assert vectors.ids is not None
    assert list(found) == vectors.ids.to_pylist()
    assert all(max(hits, key=lambda id_: hits[id_]) == query for query, hits in found.items())


def test_calibrated_and_rescored_search(run: Run, index: Path, encoder: Path) -> None:
    assert "recall 1.0000" in run("index", "calibrate", index)
    assert "exact" in run("index", "info", index)
    words = ("index", "search", index, "heron river", "--encoder", encoder, "-k", "3")
    assert run(*words, "--recall", "1") == run(*words, "--rescore")


def test_search_wants_one_kind_of_query(run: Run, index: Path) -> None:
    with pytest.raises(ConfigError, match="either a query in words or --vectors"):
        run("index", "search", index)
    with pytest.raises(ConfigError, match="needs --encoder"):
        run("index", "search", index, "words")


def test_info_and_verify(run: Run, index: Path, tmp_path: Path) -> None:
    assert "bytes a posting" in run("index", "info", index)
    assert "every byte is as it was written" in run("index", "verify", index)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in index.rglob("*"):
        target = copy / file.relative_to(index)
        if file.is_dir():
            target.mkdir()
        else:
            target.write_bytes(file.read_bytes())
    impacts = next(copy.rglob("impacts.npy"))
    data = bytearray(impacts.read_bytes())
    data[-1] ^= 1
    impacts.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=r"impacts\.npy"):
        run("index", "verify", copy)


def test_shards_are_built_searched_and_verified(
    run: Run, data: Path, encoder: Path, index: Path, tmp_path: Path
) -> None:
    vectors, shards = index.parent / "vectors", tmp_path / "shards"
    options = ("--documents", data, "--encoder", encoder, "--shards", "3")
    assert "3, of" in run("index", "build", vectors, shards, *options)
    words = ("heron river", "--encoder", encoder, "-k", "3")
    whole = run("index", "search", index, *words)
    assert run("index", "search", shards, *words, "--threads", "2") == whole
    assert "every byte is as it was written" in run("index", "verify", shards)
    for odd in (("--workers", 1), ("--segments", 2), ("--budget-mb", 500)):
        with pytest.raises(ConfigError, match="--shards goes with none of"):
            run("index", "build", vectors, tmp_path / "odd", "--shards", 2, *odd)
    with pytest.raises(FormatError, match="is an index in shards; open it with open_index"):
        run("index", "watch", tmp_path, shards, "--once")
    shown = run("index", "info", shards)
    assert "bytes a posting" in shown
    assert "10 to 99" in shown
    with pytest.raises(ConfigError, match="cannot be drawn"):
        run("index", "info", shards, "--plot", tmp_path / "shards.png")
    some = SparseVectors.read_parquet(vectors)[:3]
    some.write_parquet(tmp_path / "some.parquet")
    assert some.ids is not None
    assert "2 documents deleted" in run("index", "delete", shards, *some.ids.to_pylist()[:2])
    shown = run("index", "add", shards, tmp_path / "some.parquet", "--update")
    assert "3 documents added, 1 of them in the place of others" in shown
    assert "in 3 segments" in run("index", "merge", shards, "--max-segments", "1")
    assert "recall 1.0000" in run("index", "calibrate", shards)


def test_what_a_kind_lacks_is_refused(run: Run, tmp_path: Path) -> None:
    from gossamer.index.dense import DenseIndex
    from gossamer.index.dense_vectors import DenseVectors

    pytest.importorskip("faiss")
    path = tmp_path / "dense"
    DenseIndex.build(path, DenseVectors(np.eye(4, dtype=np.float32), pa.array(list("abcd"))))
    assert "dimensions" in run("index", "info", path)
    assert "every byte is as it was written" in run("index", "verify", path)
    assert "1 documents deleted; 3 left" in run("index", "delete", path, "b")
    assert "1 merges; 3 documents in 1 segments" in run("index", "merge", path, "--max-segments", "1")
    with pytest.raises(InputError, match="only segments with a structure can be calibrated"):
        run("index", "calibrate", path)
    queries = SparseVectors.from_dicts([{0: 1.0}], 4, ids=["q"])
    queries.write_parquet(tmp_path / "queries.parquet")
    for command, option in (("search", "--vectors"), ("calibrate", "--queries")):
        with pytest.raises(MismatchError, match="is a DenseIndex, which this command does not take"):
            run("index", command, path, option, tmp_path / "queries.parquet")


def test_a_plan_says_what_a_build_takes(run: Run, data: Path, index: Path) -> None:
    vectors = index.parent / "vectors"
    shown = run("index", "plan", vectors, "--documents", data, "--set", "window=1024", "--workers", 2)
    assert all(words in shown for words in ("postings on disk", "memory at its peak", "minutes"))
    with pytest.raises(NotFoundError, match="there are no documents at"):
        run("index", "plan", vectors, "--documents", data / "absent")


def test_an_index_follows_a_folder(
    run: Run, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = SparseVectors.read_parquet(index.parent / "vectors")
    (tmp_path / "new").mkdir()
    vectors[:20].write_parquet(tmp_path / "new" / "1.parquet")
    words = ("index", "watch", tmp_path / "new", tmp_path / "index", "--once")
    assert "20 documents in" in run(*words)
    vectors[10:].write_parquet(tmp_path / "new" / "2.parquet")
    assert f"{vectors.n_rows} documents in" in run(*words)
    look = Watch.look

    def look_once(watch: Watch) -> Iterator[Seen]:
        yield from look(watch)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Watch, "look", look_once)
    assert f"{vectors.n_rows} documents in" in run(
        *words[:1], "build", tmp_path / "new", tmp_path / "b", "--watch"
    )
    assert InvertedIndex.open(tmp_path / "b").n_documents == vectors.n_rows
    with pytest.raises(ConfigError, match="--watch goes with"):
        run("index", "build", tmp_path / "new", tmp_path / "other", "--watch", "--workers", 2)


def test_builds_over_shards(
    run: Run, ray_cluster: None, data: Path, encoder: Path, index: Path, tmp_path: Path
) -> None:
    vectors = index.parent / "vectors"
    words = ("--documents", data, "--encoder", encoder)
    shown = run("index", "build", vectors, tmp_path / "a", *words, "--workers", 2, "--budget-mb", 100)
    assert "60" in shown
    run("index", "build", f"file://{vectors}", tmp_path / "b", *words)
    for path in (tmp_path / "a", tmp_path / "b"):
        whole, built = InvertedIndex.open(index), InvertedIndex.open(path)
        assert whole._snapshot.manifest.files == built._snapshot.manifest.files
    with pytest.raises(ConfigError, match="budget_bytes is 1,000,000, and 60 rows"):
        run("index", "build", vectors, tmp_path / "c", "--budget-mb", 1)


def test_an_index_is_changed_and_drawn(run: Run, index: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(index, copy)
    vectors = SparseVectors.read_parquet(index.parent / "vectors")
    n_rows, some = vectors.n_rows, vectors[:3]
    assert some.ids is not None
    names = some.ids.to_pylist()
    some.write_parquet(tmp_path / "some.parquet")
    with pytest.raises(RecordError, match="is in the index already"):
        run("index", "add", copy, tmp_path / "some.parquet")
    assert f"2 documents deleted; {n_rows - 2}" in run("index", "delete", copy, *names[:2])
    shown = run("index", "add", copy, tmp_path / "some.parquet", "--update")
    assert f"3 documents added, 1 of them in the place of others; {n_rows} in 2 segments" in shown
    assert f"1 merges; {n_rows} documents in 1 segments" in run("index", "merge", copy, "--max-segments", "1")
    assert "10 to 99" in run("index", "info", copy, "--plot", tmp_path / "index.png")
    assert (tmp_path / "index.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_replaced_unless_told(run: Run, data: Path, encoder: Path, index: Path) -> None:
    vectors = index.parent / "vectors"
    with pytest.raises(ExistsError):
        run("index", "build", vectors, index)
    with pytest.raises(ExistsError):
        run("lsr", "encode", encoder, data, vectors, "--local")
    with pytest.raises(ExistsError):
        run("lsr", "train", data, encoder.parent, "--local", "--encoder", encoder)
    run("lsr", "encode", encoder, data, vectors, "--local", "--replace")
    assert "0 documents were encoded" in run("lsr", "encode", encoder, data, vectors, "--local", "--changed")


def test_vectors_are_converted_and_indexed_from_other_formats(
    run: Run, data: Path, encoder: Path, index: Path, tmp_path: Path
) -> None:
    vectors = index.parent / "vectors"
    given = SparseVectors.read_parquet(vectors)
    words = tmp_path / "words.jsonl.gz"
    shown = run(
        *(
            "vectors",
            "convert",
            vectors,
            words,
            "--vocabulary",
            encoder,
            "--documents",
            data,
            "--scale",
            "1000",
        )
    )
    assert "60 rows written" in shown
    with gzip.open(words, "rt", encoding="utf-8") as file:
        first = json.loads(file.readline())
    assert set(first) == {"id", "contents", "vector"}
    assert first["contents"].startswith("otter Every night")
    with pytest.raises(ExistsError):
        run("vectors", "convert", vectors, words)
    run("vectors", "convert", words, tmp_path / "x.csr", "--vocabulary", encoder, "--scale", "1000")
    run("index", "build", tmp_path / "x.csr", tmp_path / "index", "--documents", data)
    run("index", "search", tmp_path / "index", "--vectors", tmp_path / "x.csr", "--run", tmp_path / "x.run")
    found = read_run(tmp_path / "x.run")
    assert given.ids is not None
    assert list(found) == given.ids.to_pylist()
    run("vectors", "convert", tmp_path / "index", tmp_path / "x.npz")
    assert (tmp_path / "x.npz.ids").read_text(encoding="utf-8").splitlines() == given.ids.to_pylist()
    run("vectors", "vocabulary", words, tmp_path / "words.json")
    run("index", "build", words, tmp_path / "words", "--vocabulary", tmp_path / "words.json")
    with pytest.raises(ConfigError, match="which knows its terms"):
        run("vectors", "convert", tmp_path / "index", tmp_path / "y.npz", "--signed")
    with pytest.raises(ConfigError, match="vocabulary has no meaning for this format"):
        run("vectors", "convert", tmp_path / "x.csr", tmp_path / "y.npz", "--vocabulary", encoder)
    with pytest.raises(ConfigError, match="--n-terms"):
        run("index", "build", words, tmp_path / "y")


def test_unknown_keys_are_answered_with_the_nearest(run: Run, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'stesp': did you mean 'steps'\?"):
        run("lsr", "train", data, tmp_path / "run", "--local", "--set", "stesp=3")
    with pytest.raises(ConfigError, match=r"did you mean 'docstrings'\?"):
        run("lsr", "train", data, tmp_path / "run", "--local", "--preset", "docstring")
    with pytest.raises(ConfigError, match=r"unknown key 'impact': did you mean 'impacts'\?"):
        run("index", "build", data, tmp_path / "index", "--set", "impact=int8")
    assert not (tmp_path / "run").exists()


def test_bm25_is_an_encoder_like_any_other(run: Run, data: Path, tmp_path: Path) -> None:
    run("lsr", "bm25", data, tmp_path / "bm25")
    shown = run("lsr", "evaluate", tmp_path / "bm25", data)
    assert "nDCG@10" in shown


def test_recommender_from_log_to_table(run: Run, tmp_path: Path) -> None:
    rows = [
        f"u{user},i{(user % 3) * 10 + item}" for user in range(30) for item in range(10) if (user + item) % 4
    ]
    (tmp_path / "log.csv").write_text("who,what\n" + "\n".join(rows) + "\n", encoding="utf-8")
    small = [word for text in ("width=16", "n_epochs=3", "sparsity.nnz=4") for word in ("--set", text)]
    columns = [word for text in ("user=who", "item=what", "features=[]") for word in ("--log", text)]
    folder = tmp_path / "run"
    train = ["recsys", "train", tmp_path / "log.csv", folder, "--local", *small, *columns]
    run(*train, "--log", "min_per_user=1")
    assert (folder / "metrics.png").exists()
    with pytest.raises(ConfigError, match="input log"):
        run(*train, "--log", "min_per_user=1", "--log", "seed=1", "--resume")
    with pytest.raises(ConfigError, match="did you mean 'ridge'"):
        run("recsys", "export", folder, tmp_path / "recommender", "--set", "rigde=2")
    shown = run("recsys", "export", folder, tmp_path / "recommender", "--set", "ridge=2.5")
    assert "non-zeros a user" in shown
    about = json.loads((tmp_path / "recommender" / "recommender.json").read_text(encoding="utf-8"))
    assert (about["fold_in"]["ridge"], about["fold_in"]["nnz"]) == (2.5, 4)
    shown = run("recsys", "evaluate", folder, tmp_path / "recommender")
    assert "popularity" in shown
    assert "R@10" in shown
    with pytest.raises(ExistsError):
        run("recsys", "export", folder, tmp_path / "recommender")


def test_clicks_and_items_of_a_recommender(run: Run, tmp_path: Path) -> None:
    from gossamer.recsys import LiveInteractions, Recommender

    rows = [f"u{user},i{(user % 3) * 10 + item}" for user in range(12) for item in range(10)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with LiveInteractions.open(tmp_path / "live", create=True) as live:
        live.append([("u1", "i2"), ("newcomer", "i2"), ("newcomer", "i3")])
    shown = run("recsys", "clicks", tmp_path / "live", tmp_path / "clicks.parquet")
    assert "up to position 3" in shown
    small = [word for text in ("width=16", "n_epochs=1", "sparsity.nnz=4") for word in ("--set", text)]
    plain = [word for text in ("features=[]", "min_per_user=1", "min_per_item=1") for word in ("--log", text)]
    clicks = ["--clicks", tmp_path / "clicks.parquet"]
    run("recsys", "train", tmp_path / "log.csv", tmp_path / "run", "--local", *small, *plain, *clicks)
    items = "\n".join(
        json.dumps({"id": f"i{i}", "text": "", "shelf": ["even", "odd"][i % 2]}) for i in range(30)
    )
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")
    run("recsys", "export", tmp_path / "run", tmp_path / "recommender", "--items", tmp_path / "items.jsonl")
    recommender = Recommender.open(tmp_path / "recommender")
    assert recommender.n_users == 13
    found = recommender.recommend(user="newcomer", filters={"shelf": "odd"}).item_ids
    assert found
    assert all(int(item[1:]) % 2 for item in found)
    run("recsys", "evaluate", tmp_path / "run", tmp_path / "recommender")
    with pytest.raises(NotFoundError, match="no clicks at"):
        run("recsys", "clicks", tmp_path / "nothing", tmp_path / "clicks.parquet")


def test_an_error_of_ours_is_one_line_and_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gossamer.serving", "index", "info", str(tmp_path / "absent")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: NotFoundError: ")
    assert "Traceback" not in result.stderr
