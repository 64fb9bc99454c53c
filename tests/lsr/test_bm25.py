import json
import math
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from gossamer.index.measures import evaluate, read_qrels
from gossamer.kernels.errors import ConfigError, FormatError, InputError
from gossamer.lsr.bm25 import STOP_WORDS, Bm25Config, Bm25Encoder
from gossamer.lsr.tokenizer import train_tokenizer
from tests.contracts.encoder import ODD_TEXTS, TEXTS, EncoderContract


class TestStems(EncoderContract):
    def make(self, texts: list[str]) -> Bm25Encoder:
        return Bm25Encoder.fit(iter(texts))


class TestPieces(EncoderContract):
    def make(self, texts: list[str]) -> Bm25Encoder:
        tokenizer = train_tokenizer(texts, vocabulary_size=200)
        return Bm25Encoder.fit(iter(texts), config=Bm25Config(analyzer="pieces"), tokenizer=tokenizer)


@pytest.mark.parametrize("analyzer", ["stems", "pieces"])
@pytest.mark.parametrize("text", [*TEXTS, *ODD_TEXTS])
def test_spans_are_of_the_terms_of_the_document(analyzer: Literal["stems", "pieces"], text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=200) if analyzer == "pieces" else None
    encoder = Bm25Encoder.fit(TEXTS, config=Bm25Config(analyzer=analyzer), tokenizer=tokenizer)
    terms, counts = encoder.encode_queries([text]).row(0)
    spans = encoder.term_spans(text)
    assert Counter(spans.terms.tolist()) == dict(zip(terms.tolist(), counts.tolist(), strict=True))


def test_scores_are_the_plain_formula() -> None:
    documents = ["red fish blue fish", "one fish", "two birds of blue", "", "nothing here matches xyzzy"]
    k1, b = 0.9, 0.4
    encoder = Bm25Encoder.fit(documents, config=Bm25Config(k1=k1, b=b))
    query = "blue fish fish unseen"
    scores = (
        encoder.encode_documents(documents).to_scipy()
        @ encoder.encode_queries([query]).to_scipy().toarray()[0]
    )

    bags = [
        Counter(w for w in d.replace("matches", "match").replace("birds", "bird").split() if w != "of")
        for d in documents
    ]
    mean = sum(map(Counter.total, bags)) / len(bags)
    for bag, score in zip(bags, scores, strict=True):
        expected = 0.0
        for word in query.split():
            df = sum(word in other for other in bags)
            if df:
                idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
                expected += idf * bag[word] / (bag[word] + k1 * (1 - b + b * bag.total() / mean))
        assert score == pytest.approx(expected, rel=1e-6)


def test_words_are_stemmed_and_stop_words_left_out() -> None:
    encoder = Bm25Encoder.fit(["The Indexes were indexing x an index"])
    assert [encoder.term(number) for number in range(encoder.n_terms)] == ["index", "were"]
    assert len(STOP_WORDS) == 33


def test_the_published_figure(shared_data: Path) -> None:
    """NFCorpus, test: nDCG@10 .318 with the Lucene variant, Snowball stems and English stop words."""
    folder = shared_data / "text" / "nfcorpus"
    documents = [
        json.loads(line) for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    queries = [
        json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    qrels = read_qrels(folder / "qrels" / "test.tsv")
    queries = [query for query in queries if query["_id"] in qrels]
    texts = [f"{document['title']} {document['text']}".strip() for document in documents]
    encoder = Bm25Encoder.fit(texts)
    scores_QD = encoder.encode_queries([query["text"] for query in queries]).to_scipy() @ (
        encoder.encode_documents(texts).to_scipy().T
    )
    run = {}
    for query, scores_D in zip(queries, scores_QD.toarray(), strict=True):
        best = np.argsort(-scores_D, kind="stable")[:100]
        run[query["_id"]] = {documents[row]["_id"]: float(scores_D[row]) for row in best if scores_D[row] > 0}
    assert evaluate(run, qrels, ["nDCG@10"])["nDCG@10"] == pytest.approx(0.318, abs=1e-3)  # ties


def test_terms_the_corpus_did_not_have_are_ignored() -> None:
    encoder = Bm25Encoder.fit(["fish", "bird"])
    assert encoder.encode_queries(["whale", "whale fish"]).to_dicts() == [{}, {1: 1.0}]


def test_a_tokenizer_belongs_to_pieces() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=200)
    with pytest.raises(ConfigError, match="was given"):
        Bm25Encoder.fit(TEXTS, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="is missing"):
        Bm25Encoder.fit(TEXTS, config=Bm25Config(analyzer="pieces"))


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="none of 2 documents"):
        Bm25Encoder.fit(["", "the"])


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    Bm25Encoder.fit(TEXTS).save(tmp_path / "a")
    described = json.loads((tmp_path / "a" / "bm25.json").read_text(encoding="utf-8"))
    np.save(tmp_path / "a" / "document_frequencies.npy", np.ones(3, np.int64))
    with pytest.raises(FormatError, match="counts of shape"):
        Bm25Encoder.load(tmp_path / "a")
    (tmp_path / "a" / "document_frequencies.npy").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        Bm25Encoder.load(tmp_path / "a")
    (tmp_path / "a" / "bm25.json").write_text(json.dumps(described | {"format_version": 9}), encoding="utf-8")
    with pytest.raises(FormatError, match="format version"):
        Bm25Encoder.load(tmp_path / "a")
