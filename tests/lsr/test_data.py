import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gossamer.kernels.errors import NotFoundError, RecordError
from gossamer.lsr.data import (
    CORPUS,
    PAIRS,
    document_texts,
    pieces,
    read_corpus,
    read_pairs,
    read_piece,
    read_qrels,
    read_queries,
)


def rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, object]]:
    return [row for batch in batches for row in batch.to_pylist()]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


class TestCorpus:
    def test_a_beir_folder_keeps_metadata_as_columns(self, tmp_path: Path) -> None:
        write(
            tmp_path / "corpus.jsonl",
            '{"_id": 7, "title": "A", "text": "alpha", "metadata": {"year": 1999, "url": "x"}, "tags": ["p", "q"]}',
            "",
            '{"_id": "8", "text": "beta", "score": 2}',
        )
        found = rows(read_corpus(tmp_path))
        shared = {"tags": '["p", "q"]', "url": "x", "year": 1999, "score": None}
        assert found == [
            {"id": "7", "title": "A", "text": "alpha", **shared},
            {"id": "8", "title": "", "text": "beta", "tags": None, "url": None, "year": None, "score": 2},
        ]

    def test_tsv_with_and_without_a_header(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "a.tsv", "1\talpha", "2\tone\tbeta")
        headed = write(tmp_path / "b.tsv", "text\tid\tlang", "alpha\t1\ten", "beta\t2\tde")
        assert [row["text"] for row in rows(read_corpus(plain))] == ["alpha", "beta"]
        assert rows(read_corpus(plain))[1]["title"] == "one"
        assert rows(read_corpus(headed))[1] == {"id": "2", "title": "", "text": "beta", "lang": "de"}

    def test_parquet(self, tmp_path: Path) -> None:
        table = pa.table({"_id": [1, 2, 3], "text": ["a", "b", "c"], "year": [1.5, None, 2.0]})
        pq.write_table(table, tmp_path / "c.parquet", row_group_size=2)
        found = rows(read_corpus(tmp_path / "c.parquet"))
        assert [(row["id"], row["text"], row["year"]) for row in found] == [
            ("1", "a", 1.5),
            ("2", "b", None),
            ("3", "c", 2),
        ]
        assert len(pieces(tmp_path / "c.parquet", CORPUS)) == 2

    def test_an_encoder_reads_title_and_text(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "c.jsonl", '{"id": "1", "title": "T", "text": "x"}', '{"id": "2", "text": "y"}'
        )
        assert [text for batch in read_corpus(file) for text in document_texts(batch)] == ["T x", "y"]

    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path) -> None:
        for name, text in {
            "a.jsonl": '{"_id": "1", "text": "a"}\n',
            "b.tsv": "1\ta\n",
            "c.tsv": "id\ttext\n1\ta\n",
        }.items():
            (tmp_path / name).write_text(text, encoding="utf-8-sig")
            assert rows(read_corpus(tmp_path / name)) == [{"id": "1", "title": "", "text": "a"}]

    def test_values_that_json_has_no_form_for(self, tmp_path: Path) -> None:
        day = datetime(2024, 2, 29, 12, tzinfo=UTC)
        table = pa.table({"id": ["1"], "text": ["a"], "day": [day], "days": [[day]]})
        pq.write_table(table, tmp_path / "c.parquet")
        (found,) = rows(read_corpus(tmp_path / "c.parquet"))
        assert found["day"] == "2024-02-29 12:00:00+00:00"
        assert found["days"] == '["2024-02-29 12:00:00+00:00"]'

    def test_large_whole_numbers_in_a_column_of_floats(self, tmp_path: Path) -> None:
        file = write(tmp_path / "c.jsonl", '{"id": "1", "x": 0.5}', f'{{"id": "2", "x": {2**60 + 1}}}')
        assert [row["x"] for row in rows(read_corpus(file))] == [0.5, 2.0**60]

    @pytest.mark.parametrize("piece_bytes", [1, 100, 1_000, 10**6])
    def test_pieces_hold_every_row_once_in_order(self, tmp_path: Path, piece_bytes: int) -> None:
        lines = [
            json.dumps({"_id": str(n), "text": "wörter " * (n % 7)}, ensure_ascii=False) for n in range(90)
        ]
        file = write(tmp_path / "c.jsonl", *lines)
        cut = pieces(file, CORPUS, piece_bytes=piece_bytes)
        assert [row["id"] for piece in cut for row in rows(read_piece(piece))] == [str(n) for n in range(90)]
        assert len({str(piece.schema) for piece in cut}) == 1

    def test_a_last_line_without_line_end(self, tmp_path: Path) -> None:
        (tmp_path / "c.tsv").write_text("1\ta\n2\tb")
        assert len(rows(read_corpus(tmp_path / "c.tsv"))) == 2

    def test_an_empty_file_has_no_rows(self, tmp_path: Path) -> None:
        assert rows(read_corpus(write(tmp_path / "c.jsonl"))) == []


BAD_LINES = {
    "cut off": '{"_id": "2", "text": "x',
    "no object": '["2", "x"]',
    "no id": '{"title": "x"}',
    "empty id": '{"_id": " ", "text": "x"}',
    "a text that is none": '{"_id": "2", "text": 5}',
    "an id that is none": '{"_id": true, "text": "x"}',
    "a new field": '{"_id": "2", "text": "x", "novel": 1}',
    "half a surrogate pair": '{"_id": "2", "text": "\\ud800"}',
    "half a surrogate pair in an id": '{"_id": "\\ud800", "text": "x"}',
    "beyond 64 bits": f'{{"_id": "2", "text": "x", "year": {2**63}}}',
    "another type": '{"_id": "2", "text": "x", "year": "MMXX"}',
}


class TestBadLines:
    @pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
    def test_file_and_line_are_named(self, tmp_path: Path, line: str) -> None:
        good = [f'{{"_id": "g{n}", "text": "x", "year": {n}}}' for n in range(1_100)]
        file = write(tmp_path / "c.jsonl", *good, line)
        with pytest.raises(RecordError, match=r"c\.jsonl:1101: .*Mend or remove"):
            rows(read_corpus(file))

    @pytest.mark.parametrize("field", ['"x": "\\ud800"', '"\\ud800": 1', f'"x": {-(2**63) - 1}'])
    def test_what_no_column_can_hold(self, tmp_path: Path, field: str) -> None:
        file = write(tmp_path / "c.jsonl", '{"_id": "1"}', f'{{"_id": "2", {field}}}')
        with pytest.raises(RecordError, match=r"c\.jsonl:2: .*(surrogates|beyond 64 bits)"):
            rows(read_corpus(file))

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "c.jsonl").write_bytes(b'{"_id": "1"}\n{"_id": "\xff"}\n')
        with pytest.raises(RecordError, match=r"c\.jsonl:2: "):
            rows(read_corpus(tmp_path / "c.jsonl"))

    def test_the_line_is_right_in_a_later_piece(self, tmp_path: Path) -> None:
        file = write(tmp_path / "c.jsonl", *['{"_id": "1"}'] * 1_200, "{}")
        cut = pieces(file, CORPUS, piece_bytes=500)
        with pytest.raises(RecordError, match=r"c\.jsonl:1201: no 'id'"):
            rows(read_piece(cut[-1]))

    def test_a_tsv_line_of_another_width(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=r"p\.tsv:2: 4 fields instead of 2 or 3"):
            rows(read_pairs(write(tmp_path / "p.tsv", "q\td", "a\tb\tc\td")))

    def test_a_parquet_row(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"id": ["1", None], "text": ["a", "b"]}), tmp_path / "c.parquet")
        with pytest.raises(RecordError, match=r"c\.parquet:2: no 'id'"):
            rows(read_corpus(tmp_path / "c.parquet"))

    def test_a_format_that_no_suffix_names(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=r"'\.csv' says no format"):
            read_queries(write(tmp_path / "q.csv", "1,x"))

    @pytest.mark.parametrize("read", [read_corpus, read_queries, read_pairs])
    def test_a_file_that_is_not_there(
        self, tmp_path: Path, read: Callable[[Path], Iterator[pa.RecordBatch]]
    ) -> None:
        with pytest.raises(NotFoundError, match="absent"):
            read(tmp_path / "absent.jsonl")


class TestPairs:
    def test_jsonl_spellings_and_a_list_of_negatives(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "p.jsonl",
            '{"query": "q", "pos": "d", "negs": ["m", "n"], "score": 3}',
            '{"anchor": "a", "positive": "b"}',
        )
        assert rows(read_pairs(file)) == [
            {"query": "q", "document": "d", "negative": "m"},
            {"query": "q", "document": "d", "negative": "n"},
            {"query": "a", "document": "b", "negative": None},
        ]

    def test_tsv_triples(self, tmp_path: Path) -> None:
        file = write(tmp_path / "p.tsv", "q\td\tn", "r\te")
        assert rows(read_pairs(file))[0] == {"query": "q", "document": "d", "negative": "n"}
        assert rows(read_pairs(file))[1]["negative"] is None

    def test_a_beir_folder_is_joined(self, tmp_path: Path, collection: Path) -> None:
        for name in ("corpus.jsonl", "queries.jsonl"):
            (tmp_path / name).write_text((collection / name).read_text())
        (tmp_path / "qrels").mkdir()
        write(
            tmp_path / "qrels" / "train.tsv",
            "query-id\tcorpus-id\tscore",
            "q-otter-river\totter-river\t2",
            "q-otter-river\tlynx-desert\t0",
        )
        found = rows(read_pairs(tmp_path))
        assert found == [
            {
                "query": "sleeps river otter",
                "document": "otter Every night it sleeps near the river.",
                "negative": None,
            }
        ]

    def test_a_folder_with_pairs_is_read_as_pairs(self, collection: Path) -> None:
        assert len(rows(read_pairs(collection))) == 60
        assert len(pieces(collection, PAIRS)) == 1


class TestQrels:
    def test_beir_and_trec(self, tmp_path: Path, collection: Path) -> None:
        assert read_qrels(collection, "test")["q-otter-river"] == {"otter-river": 1}
        trec = write(tmp_path / "qrels.txt", "q1 0 d1 2", "q1 0 d2 0", "", "q2 0 d1 -1")
        assert read_qrels(trec) == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}

    def test_ids_with_spaces_between_tabs(self, tmp_path: Path) -> None:
        file = write(tmp_path / "q.tsv", "query-id\tcorpus-id\tscore", "q 1\tNew York\t1", "q2\td 2\t0\t")
        assert read_qrels(file) == {"q 1": {"New York": 1}, "q2": {"d 2": 0}}
        with pytest.raises(RecordError, match=r"r\.tsv:1: .*whole number"):
            read_qrels(write(tmp_path / "r.tsv", "q1\t\t1"))

    def test_a_byte_order_mark_is_no_id(self, tmp_path: Path) -> None:
        (tmp_path / "q.tsv").write_text("q1\td1\t1\n", encoding="utf-8-sig")
        assert read_qrels(tmp_path / "q.tsv") == {"q1": {"d1": 1}}

    def test_a_missing_split_names_those_that_are_there(self, collection: Path) -> None:
        with pytest.raises(NotFoundError, match="splits that are there: test"):
            read_qrels(collection, "dev")

    def test_a_bad_grade(self, tmp_path: Path) -> None:
        file = write(tmp_path / "q.tsv", "query-id\tcorpus-id\tscore", "q\td\thigh")
        with pytest.raises(RecordError, match=r"q\.tsv:2: .*whole number"):
            read_qrels(file)


def test_real_collections(shared_data: Path) -> None:
    folder = shared_data / "text" / "nfcorpus"
    assert sum(len(batch) for batch in read_corpus(folder)) == 3_633
    assert len(read_qrels(folder, "test")) == 323
    assert sum(len(batch) for batch in read_pairs(folder, split="dev")) > 10_000
