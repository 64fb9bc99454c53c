"""The jobs do what the plain functions do, on workers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gossamer.index.jobs import own_errors
from gossamer.index.runs import RunFolder
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, ExistsError, InputError, RecordError
from gossamer.lsr import encode as encode_module
from gossamer.lsr import jobs as jobs_module
from gossamer.lsr.bm25 import Bm25Encoder
from gossamer.lsr.data import PAIRS, pieces, read_pairs
from gossamer.lsr.encode import encode_corpus
from gossamer.lsr.encoder import SparseEncoder
from gossamer.lsr.formats import load_encoder
from gossamer.lsr.jobs import encode_job, token_dataset, train_job
from gossamer.lsr.known_rows import Changes
from gossamer.lsr.local import train_files
from gossamer.lsr.pairs import spool_pairs
from gossamer.lsr.train import TrainConfig, train

CONFIG = TrainConfig(
    steps=6,
    batch_size=8,
    learning_rate=2e-3,
    table_learning_rate=1e-4,  # Adam's first steps are as large where a gradient is rounding alone
    warmup_steps=2,
    precision="float32",
    checkpoint_every=3,
    log_every=2,
)


def plain(collection: Path, encoder_folder: Path, tmp_path: Path) -> SparseEncoder:
    encoder = load_encoder(encoder_folder)
    assert isinstance(encoder, SparseEncoder)
    pairs = spool_pairs(
        read_pairs(collection), tmp_path / "pairs.arrow", encoder.tokenize_queries, encoder.tokenize_documents
    )
    train(CONFIG, pairs, encoder, RunFolder.start(tmp_path / "plain", CONFIG))
    return encoder


def test_two_workers_train_what_one_process_trains(
    ray_cluster: None, collection: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_PAIR_PIECE_BYTES", 500)  # many blocks, which each worker gets in order
    assert len(jobs_module._pair_pieces(collection, tmp_path)) > 5
    seen: list[dict[str, float]] = []
    out = train_job(CONFIG, collection, encoder_folder, tmp_path / "run", n_workers=2, on_metrics=seen.append)
    trained = load_encoder(out)
    assert isinstance(trained, SparseEncoder)
    expected = plain(collection, encoder_folder, tmp_path).model.state_dict()
    for name, tensor in trained.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
    assert [line["step"] for line in seen] == [2, 4, 6]
    assert seen[-1]["loss"] == pytest.approx(RunFolder(tmp_path / "plain").metrics()[-1]["loss"], abs=1e-6)
    assert (tmp_path / "run" / "metrics.png").is_file()
    with pytest.raises(ExistsError, match="resume"):
        train_job(CONFIG, collection, encoder_folder, tmp_path / "run")


def test_a_bad_pair_is_reported_with_its_line(
    ray_cluster: None, encoder_folder: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "otter", "document": "river"}\n{"query": "otter"}\n')
    dataset = token_dataset(pieces(pairs, PAIRS), encoder_folder)
    with pytest.raises(RecordError, match=r"pairs\.jsonl:2: no 'document'"):
        own_errors(dataset.materialize)


@pytest.mark.parametrize("train_from", [train_files, train_job])
def test_pairs_that_join_to_nothing_are_refused(
    encoder_folder: Path, tmp_path: Path, train_from: Callable[..., Path]
) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "otter"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "otter"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("q\tghost\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv: there are no training pairs"):
        train_from(CONFIG, tmp_path, encoder_folder, tmp_path / "run")
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(InputError, match=r"pairs\.jsonl: there are no training pairs"):
        train_from(CONFIG, tmp_path, encoder_folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_workers_than_pairs_are_refused(encoder_folder: Path, collection: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 8 for 9 workers"):
        train_job(CONFIG, collection, encoder_folder, tmp_path / "run", n_workers=9)


def test_an_encoder_without_weights_cannot_be_trained(collection: Path, tmp_path: Path) -> None:
    Bm25Encoder.fit(["otter river"]).save(tmp_path / "bm25")
    with pytest.raises(ConfigError, match="Bm25Encoder, which has nothing to train"):
        train_job(CONFIG, collection, tmp_path / "bm25", tmp_path / "run")


def test_actors_encode_what_one_process_encodes(
    ray_cluster: None, collection: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "PIECE_BYTES", 1_500)
    seen: list[tuple[int, int]] = []
    target = encode_job(
        encoder_folder, collection, tmp_path / "job", n_actors=2, progress=lambda *at: seen.append(at)
    )
    expected = encode_corpus(load_encoder(encoder_folder), collection, tmp_path / "plain")
    one, other = (SparseVectors.read_parquet(folder) for folder in (target, expected))
    assert one.ids == other.ids
    np.testing.assert_allclose(one.to_scipy().toarray(), other.to_scipy().toarray(), atol=1e-6)
    assert seen == [(n, len(seen)) for n in range(1, len(seen) + 1)]
    assert len(seen) > 3
    encode_job(encoder_folder, collection, target, n_actors=1, changed=True)
    assert Changes.read(target) == Changes(n_encoded=0, n_reused=60, n_dropped=0)
    assert SparseVectors.read_parquet(target).equals(one)


def test_a_bad_document_ends_the_job_with_its_line(
    ray_cluster: None, encoder_folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "1", "text": "otter"}\n{"text": "no id"}\n' * 600)
    with pytest.raises(RecordError, match=r"corpus\.jsonl:2: no 'id'"):
        encode_job(encoder_folder, corpus, tmp_path / "job", n_actors=1)
    corpus.write_text('{"_id": "1", "text": "otter"}\n' * 1_100 + '{"text": "no id"}\n')
    with pytest.raises(RecordError, match=r"corpus\.jsonl:1101: no 'id'"):
        encode_job(encoder_folder, corpus, tmp_path / "job", n_actors=1)
    assert not (tmp_path / "job").exists()
