import json
from pathlib import Path

import pytest

from gossamer.kernels.errors import ExistsError, InputError
from gossamer.lsr.data import read_corpus, read_pairs, read_qrels, read_queries
from gossamer.lsr.docstrings import (
    name_in_words,
    read_docstrings,
    sentence_key,
    split_first_sentence,
    split_sections,
    split_sentences,
    write_docstrings,
)

SOURCE = '''"""Tools for boats. Every boat has a name and a number of oars."""

class Boat(Thing, Floating):
    """A thing that floats, e.g. on water."""

    def row(self, strokes: int = 1) -> float:
        """Row the boat.

        Args:
            strokes: How often the oars are pulled through the water.
        """
        def inner():
            "Hidden."

    @property
    def name(self): return 1

    @name.setter
    def name(self, value):
        """Set it."""

    if True:
        async def name(self):
            """Give it back."""
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    for name, text in {
        "boats/__init__.py": '"""Boats of all kinds."""',
        "boats/row.py": SOURCE,
        "boats/test/case.py": '"""Left out, it is a test."""',
        "boats/broken.py": "def (",
        "bare.py": "x = 1",
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_every_documented_object_is_found(root: Path) -> None:
    found = [(doc.name, doc.title, doc.kind, doc.module) for doc in read_docstrings(root)]
    assert found == [
        ("boats", "boats", "module", "boats"),
        ("boats.row", "boats.row", "module", "boats.row"),
        ("boats.row.Boat", "boats.row.Boat(Thing, Floating)", "class", "boats.row"),
        ("boats.row.Boat.row", "boats.row.Boat.row(self, strokes: int=1) -> float", "function", "boats.row"),
        ("boats.row.Boat.row.inner", "boats.row.Boat.row.inner()", "function", "boats.row"),
        ("boats.row.Boat.name", "boats.row.Boat.name(self, value)", "function", "boats.row"),
        ("boats.row.Boat.name#2", "boats.row.Boat.name(self)", "function", "boats.row"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence", "rest"),
    [
        ("One. Two.", "One.", "Two."),
        ("A thing, e.g. this, and 3.5 more.\nNext line.", "A thing, e.g. this, and 3.5 more.", "Next line."),
        ("Over two\nlines\n\nand a rest", "Over two lines", "and a rest"),
        ("Only this", "Only this", ""),
        ("Really? Yes!", "Really?", "Yes!"),
    ],
)
def test_first_sentences(text: str, sentence: str, rest: str) -> None:
    assert split_first_sentence(text) == (sentence, rest)


def test_names_in_words() -> None:
    assert name_in_words("http.client.HTTPResponse.read1") == "http client http response read 1"
    assert name_in_words("os._get_exports_list#2") == "os get exports list"


def test_sentences() -> None:
    text = "One, e.g. this. Two\nlines.\n\nA paragraph without an end\n\n Last?"
    assert split_sentences(text) == ["One, e.g. this.", "Two lines.", "A paragraph without an end", "Last?"]


def test_pairs_of_every_kind(root: Path, tmp_path: Path) -> None:
    (root / "boats" / "row.py").write_text(
        '"""Tools. A boat is moved by its oars. Each has one blade.\n\nArgs:\n    x: one two three four five\n"""'
    )
    write_docstrings(tmp_path / "a", root=root)
    lines = (tmp_path / "a" / "pairs.jsonl").read_text().splitlines()
    found = {(pair["kind"], pair["query"]): pair["document"] for pair in map(json.loads, lines)}
    assert found["inner", "A boat is moved by its oars."].startswith(
        "boats.row Tools. Each has one blade. Args:"
    )
    assert found["name", "boats row"].startswith("Tools.\nA boat")
    assert found["heading", "boats row Args"] == "x: one two three four five"
    assert found["sentence", "Boats of all kinds."] == "boats"


def test_sections() -> None:
    text = "Before.\n\nArgs:\n    x: the number\n\nNotes\n-----\nOf all kinds.\n"
    assert split_sections(text) == [("Args", "x: the number"), ("Notes", "Of all kinds.")]
    assert split_sections("No heading here: at all.") == []


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docstrings") / "collection"
    write_docstrings(folder)
    return folder


class TestStandardLibrary:
    def test_counts_are_those_of_a_real_collection(self, written: Path) -> None:
        stats = json.loads((written / "stats.json").read_text())
        assert 6_000 < stats["n_documents"] < 12_000
        assert sum(len(batch) for batch in read_corpus(written)) == stats["n_documents"]
        assert sum(len(batch) for batch in read_pairs(written)) == sum(stats["n_pairs"].values())
        for split, n_queries in stats["n_queries"].items():
            assert len(read_qrels(written, split)) == n_queries > 150

    def test_ids_are_unique_and_judgements_point_to_documents(self, written: Path) -> None:
        ids = [row for batch in read_corpus(written) for row in batch.column("id").to_pylist()]
        assert len(set(ids)) == len(ids)
        for split in ("dev", "test"):
            assert {document for grades in read_qrels(written, split).values() for document in grades} <= set(
                ids
            )

    def test_held_out_sentences_are_nowhere_in_training(self, written: Path) -> None:
        held_out = [
            f" {sentence_key(row)} "
            for batch in read_queries(written)
            for row in batch.column("text").to_pylist()
        ]
        training = {
            f" {sentence_key(text)} "
            for batch in read_pairs(written)
            for row in batch.to_pylist()
            for text in (row["query"], row["document"])
        }
        everything = "|".join(training)
        assert not [sentence for sentence in held_out if sentence in everything]

    def test_held_out_sentences_have_left_their_documents(self, written: Path) -> None:
        queries = {row["id"]: row["text"] for batch in read_queries(written) for row in batch.to_pylist()}
        texts = {row["id"]: row["text"] for batch in read_corpus(written) for row in batch.to_pylist()}
        for split in ("dev", "test"):
            for query, grades in read_qrels(written, split).items():
                sentence = f" {sentence_key(queries[query])} "
                for document in grades:
                    assert sentence not in f" {sentence_key(texts[document])} "
                    assert len(texts[document].split()) >= 3

    def test_dev_and_test_share_no_query(self, written: Path) -> None:
        texts = {row["id"]: row["text"] for batch in read_queries(written) for row in batch.to_pylist()}
        dev, test = (read_qrels(written, split) for split in ("dev", "test"))
        dev_keys, test_keys = ({sentence_key(texts[query]) for query in qrels} for qrels in (dev, test))
        assert (len(dev_keys), len(test_keys)) == (len(dev), len(test))
        assert not dev_keys & test_keys
        dev_documents, test_documents = (
            {document for grades in qrels.values() for document in grades} for qrels in (dev, test)
        )
        assert not dev_documents & test_documents


def test_the_same_seed_gives_the_same_files(root: Path, tmp_path: Path) -> None:
    first = write_docstrings(tmp_path / "a", root=root)
    assert write_docstrings(tmp_path / "b", root=root) == first
    assert (tmp_path / "a" / "corpus.jsonl").read_bytes() == (tmp_path / "b" / "corpus.jsonl").read_bytes()


def test_a_folder_in_use_is_left_alone(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ExistsError, match="not empty"):
        write_docstrings(tmp_path, root=root)


def test_sources_without_docstrings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no docstrings"):
        write_docstrings(tmp_path / "a", root=tmp_path)
