from pathlib import Path

import numpy as np
import pytest

from gossamer.kernels.errors import ConfigError
from gossamer.lsr.data import document_texts, read_corpus
from gossamer.lsr.evaluate import evaluate_encoder
from gossamer.lsr.start import start_encoder
from tests.lsr.tiny import START, tiny_encoder


def test_an_untrained_encoder_already_matches_words(collection: Path) -> None:
    assert evaluate_encoder(tiny_encoder(collection), collection).measures["nDCG@10"] > 0.8


def test_the_table_weighs_rare_words_more(collection: Path) -> None:
    rare, common = tiny_encoder(collection).encode_queries(["otter", "near"]).values
    assert rare > common > 0


def test_the_same_corpus_gives_the_same_encoder(collection: Path) -> None:
    assert tiny_encoder(collection).info == tiny_encoder(collection).info


def test_queries_may_be_read_by_the_transformer(collection: Path) -> None:
    encoder = start_encoder(
        START.model_copy(update={"encoder": START.encoder.model_copy(update={"query": "mlm"})}), collection
    )
    text = next(iter(document_texts(next(iter(read_corpus(collection))))))[:10]
    np.testing.assert_allclose(encoder.encode_queries([text]).values, encoder.encode_documents([text]).values)
    assert encoder.model.query_table is None


def test_a_corpus_that_is_too_small_for_its_vocabulary(collection: Path) -> None:
    with pytest.raises(ConfigError, match="vocabulary_size is 10"):
        start_encoder(START.model_copy(update={"vocabulary_size": 10}), collection)
