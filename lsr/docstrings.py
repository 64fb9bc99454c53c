"""The embedded text collection: the docstrings of Python's own standard library.

Real text that is on every machine with Python, so that anybody can judge the answers. Every module, class and function
with a docstring becomes a document (id: dotted name, title: name and signature, text: docstring); test folders are left
out. Sources are read with `ast`, never imported.

Queries are first sentences that were taken out of their documents: find the function from the sentence that says what
it does. A sentence is drawn by a hash of its own words, so all docstrings that open with the same sentence are held out
together and are all right answers to it. Three rules keep held-out sentences out of training: a document that lost its
sentence gives no training pair; a pair that holds a held-out sentence anywhere is dropped; and the dev queries, which
settings are chosen by, are drawn apart from the test queries.

Training pairs: a docstring's first sentence → name, signature and the rest; its name in words → docstring; up to four
sentences from its inside → the others; headings → their sections.
"""

import ast
import hashlib
import json
import re
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from gossamer.kernels.errors import ExistsError, InputError

Split = Literal["train", "dev", "test"]
Progress = Callable[[int, int], None]

LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "__pycache__"}
TEST_SHARE, DEV_SHARE = 0.20, 0.08
MIN_QUERY_WORDS, MIN_REST_WORDS = 3, 5
MAX_INNER, MAX_INNER_WORDS = (
    4,
    40,
)  # sentences taken from the inside of one docstring, and how long they may be

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)(?!\s+[a-z0-9])")
_WORD = re.compile(r"\w+")
_NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HEADING = re.compile(r"^[ \t]*(?:(\S.*)\n[ \t]*[-=~^*]{4,}|([A-Z][\w /-]{2,40}):)[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """One documented object of the standard library.

    Attributes:
        name: Dotted name, unique in the collection (`#2`, `#3` … on a later definition of the same name).
        signature: Parameters and return annotation of a function, bases of a class, empty for a module.
        kind: `module`, `class` or `function`.
        module: Dotted name of the module.
        sentence: First sentence, on one line.
        rest: What follows the first sentence.
    """

    name: str
    signature: str
    kind: str
    module: str
    sentence: str
    rest: str

    @property
    def title(self) -> str:
        """Name and signature."""
        return self.name.partition("#")[0] + self.signature

    @property
    def text(self) -> str:
        """The whole docstring, its first sentence on one line."""
        return f"{self.sentence}\n{self.rest}".strip()

    @property
    def can_be_held_out(self) -> bool:
        """Whether sentence and rest are long enough for a query and its document, and the rest does not repeat it."""
        long_enough = _n_words(self.sentence) >= MIN_QUERY_WORDS and _n_words(self.rest) >= MIN_REST_WORDS
        return long_enough and f" {sentence_key(self.sentence)} " not in f" {sentence_key(self.rest)} "


@dataclass(frozen=True)
class DocstringStats:
    """What `write_docstrings` wrote.

    Attributes:
        n_documents: Documents in `corpus.jsonl`.
        n_queries: Queries of each split (`test`, `dev`).
        n_pairs: Training pairs of each kind.
        n_pairs_dropped: Pairs left out because they hold a held-out sentence.
        fingerprint: SHA-256 of all files; it differs between versions of Python.
    """

    n_documents: int
    n_queries: dict[str, int]
    n_pairs: dict[str, int]
    n_pairs_dropped: int
    fingerprint: str


@dataclass
class _Writer:
    """Writes JSON lines and keeps a running hash of them."""

    file: TextIO
    digest: Any = field(default_factory=hashlib.sha256)

    def line(self, text: str) -> None:
        self.file.write(text + "\n")
        self.digest.update(text.encode())

    def record(self, **columns: Any) -> None:
        self.line(json.dumps(columns, ensure_ascii=False))


def write_docstrings(
    folder: Path | str, *, seed: int = 0, progress: Progress | None = None, root: Path | None = None
) -> DocstringStats:
    """Writes the collection as a BEIR folder with training pairs beside it.

    Args:
        folder: Target, which must not exist or be empty: `corpus.jsonl`, `queries.jsonl`, `qrels/dev.tsv`,
            `qrels/test.tsv`, `pairs.jsonl` and `stats.json`.
        seed: Seed of the draw of held-out sentences.
        progress: Called with (files read, files in all).
        root: Folder of sources; by default this interpreter's standard library.

    Returns:
        Counts and a fingerprint.

    Raises:
        ExistsError: If the folder holds something.
        InputError: If there is no source file with a docstring under `root`.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ExistsError(f"{folder} is not empty; give a new folder, or remove this one first")
    docstrings = list(read_docstrings(root, progress=progress))
    if not docstrings:
        raise InputError(f"no docstrings under {root or _stdlib()}; expected Python source files (.py) there")
    splits = draw_splits(docstrings, seed)
    (folder / "qrels").mkdir(parents=True)
    digests = [_write_corpus(folder, docstrings, splits)]
    n_queries = {}
    for split in ("dev", "test"):
        digest, n_queries[split] = _write_qrels(folder, docstrings, splits, split)
        digests.append(digest)
    digest, n_pairs, n_dropped = _write_pairs(folder, docstrings, splits)
    digests.append(digest)
    stats = DocstringStats(
        len(docstrings), n_queries, n_pairs, n_dropped, hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    (folder / "stats.json").write_text(json.dumps(asdict(stats), indent=2) + "\n")
    return stats


def read_docstrings(root: Path | None = None, *, progress: Progress | None = None) -> Iterator[Docstring]:
    """Yields the docstrings under a folder of sources, in the order of paths and lines.

    Args:
        root: Folder of sources; by default this interpreter's standard library.
        progress: Called with (files read, files in all).

    Yields:
        One `Docstring` for each module, class and function that has one. Files that this interpreter cannot parse are
        skipped.
    """
    root = root or _stdlib()
    paths = [path for path in sorted(root.rglob("*.py")) if not LEFT_OUT & set(path.relative_to(root).parts)]
    seen: dict[str, int] = defaultdict(int)
    for number, path in enumerate(paths, start=1):
        for name, signature, kind, module, text in _read_source(path, root):
            seen[name] += 1
            unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
            yield Docstring(unique, signature, kind, module, *split_first_sentence(text))
        if progress is not None:
            progress(number, len(paths))


def split_first_sentence(text: str) -> tuple[str, str]:
    """Cuts a docstring after its first sentence.

    The sentence ends at a full stop that no small letter or digit follows, and at the latest with its paragraph.

    Returns:
        The sentence on one line, and what follows it.
    """
    paragraph, gap, after = text.strip().partition("\n\n")
    end = _SENTENCE_END.search(paragraph)
    cut = end.end() if end else len(paragraph)
    return " ".join(paragraph[:cut].split()), (paragraph[cut:] + gap + after).strip()


def draw_splits(docstrings: Iterable[Docstring], seed: int) -> dict[str, Split]:
    """Draws the held-out sentences.

    A sentence can be held out if every docstring that opens with it is long enough, so that no copy stays behind.

    Returns:
        The split of each sentence's key (`sentence_key`); sentences that cannot be held out are in `train`.
    """
    eligible: dict[str, bool] = {}
    for doc in docstrings:
        key = sentence_key(doc.sentence)
        eligible[key] = eligible.get(key, True) and doc.can_be_held_out
    return {key: _draw(key, seed) if ok else "train" for key, ok in eligible.items()}


def sentence_key(sentence: str) -> str:
    """The words of a sentence in small letters: what makes two sentences the same."""
    return " ".join(_WORD.findall(sentence.lower()))


def name_in_words(name: str) -> str:
    """A dotted name as words: `http.client.HTTPResponse.read1` → `http client http response read 1`."""
    return " ".join(part.lower() for part in _NAME_PART.findall(name.partition("#")[0]))


def _draw(key: str, seed: int) -> Split:
    draw = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64
    return "test" if draw < TEST_SHARE else "dev" if draw < TEST_SHARE + DEV_SHARE else "train"


def _write_corpus(folder: Path, docstrings: list[Docstring], splits: dict[str, Split]) -> str:
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        writer = _Writer(file)
        for doc in docstrings:
            text = doc.text if splits[sentence_key(doc.sentence)] == "train" else doc.rest
            metadata = {"kind": doc.kind, "module": doc.module, "package": doc.module.partition(".")[0]}
            writer.record(_id=doc.name, title=doc.title, text=text, metadata=metadata)
    return str(writer.digest.hexdigest())


def _write_qrels(
    folder: Path, docstrings: list[Docstring], splits: dict[str, Split], split: Split
) -> tuple[str, int]:
    relevant: dict[str, list[Docstring]] = defaultdict(list)
    for doc in docstrings:
        key = sentence_key(doc.sentence)
        if splits[key] == split:
            relevant[key].append(doc)
    with (
        (folder / "queries.jsonl").open("a", encoding="utf-8") as queries,
        (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as qrels,
    ):
        writer = _Writer(qrels)
        writer.line("query-id\tcorpus-id\tscore")
        for number, docs in enumerate(relevant.values(), start=1):
            query_id = f"{split}-{number}"
            queries.write(json.dumps({"_id": query_id, "text": docs[0].sentence}, ensure_ascii=False) + "\n")
            for doc in docs:
                writer.line(f"{query_id}\t{doc.name}\t1")
    return str(writer.digest.hexdigest()), len(relevant)


def _write_pairs(
    folder: Path, docstrings: list[Docstring], splits: dict[str, Split]
) -> tuple[str, dict[str, int], int]:
    leak = _LeakCheck(key for key, split in splits.items() if split != "train")
    counts: dict[str, int] = defaultdict(int)
    n_dropped = 0
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        writer = _Writer(file)
        for doc in docstrings:
            if splits[sentence_key(doc.sentence)] != "train":
                continue
            for kind, query, document in _training_pairs(doc):
                if leak(query) or leak(document):
                    n_dropped += 1
                    continue
                counts[kind] += 1
                writer.record(kind=kind, query=query, document=document)
    return str(writer.digest.hexdigest()), dict(counts), n_dropped


def _training_pairs(doc: Docstring) -> Iterator[tuple[str, str, str]]:
    """Yields (kind, query, document): a document is title and text, as the encoder will see it."""
    if _n_words(doc.sentence) >= MIN_QUERY_WORDS:
        yield "sentence", doc.sentence, f"{doc.title} {doc.rest}".strip()
    yield "name", name_in_words(doc.name), doc.text
    sentences = split_sentences(doc.text)
    inner = [place for place, text in enumerate(sentences) if place and _is_plain(text)]
    for place in inner[:MAX_INNER]:
        others = " ".join(sentences[:place] + sentences[place + 1 :])
        if _n_words(others) >= MIN_REST_WORDS:
            yield "inner", sentences[place], f"{doc.title} {others}"
    for heading, section in split_sections(doc.rest):
        if _n_words(section) >= MIN_REST_WORDS:
            yield "heading", f"{name_in_words(doc.name)} {heading}", section


def split_sentences(text: str) -> list[str]:
    """Cuts a text into sentences, each on one line; a paragraph ends a sentence too."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        ends = [end.end() for end in _SENTENCE_END.finditer(paragraph)]
        found += [paragraph[a:b] for a, b in zip([0, *ends], [*ends, len(paragraph)], strict=True)]
    return [line for line in (" ".join(sentence.split()) for sentence in found) if line]


def _is_plain(sentence: str) -> bool:
    """Whether a sentence is neither a fragment, nor a list or an example of code."""
    return MIN_QUERY_WORDS < _n_words(sentence) <= MAX_INNER_WORDS and ">>>" not in sentence


def split_sections(text: str) -> list[tuple[str, str]]:
    """Cuts a text at its headings: a line that is underlined, or `Title:` alone on a line.

    Returns:
        (heading, section) in order; what stands before the first heading is left out.
    """
    marks = list(_HEADING.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)] if marks else []
    return [
        ((mark[1] or mark[2]).strip(), text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]


class _LeakCheck:
    """Tells whether a text holds one of the held-out sentences, word for word.

    Sentences are looked up by their first three words, so a check is linear in the text.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_start: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
        for key in keys:
            words = key.split()
            self._by_start[tuple(words[:MIN_QUERY_WORDS])].append(words)

    def __call__(self, text: str) -> bool:
        words = sentence_key(text).split()
        return any(
            words[start : start + len(sentence)] == sentence
            for start in range(len(words) - MIN_QUERY_WORDS + 1)
            for sentence in self._by_start.get(tuple(words[start : start + MIN_QUERY_WORDS]), ())
        )


def _read_source(path: Path, root: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields (dotted name, signature, kind, module, docstring) of one file."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old sources hold invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from _walk(tree, module, "module", module)


def _walk(node: ast.AST, name: str, kind: str, module: str) -> Iterator[tuple[str, str, str, str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and text.strip():
            yield name, _signature(node), kind, module, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _walk(child, f"{name}.{child.name}", "class", module)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _walk(child, f"{name}.{child.name}", "function", module)
        else:
            yield from _walk(child, name, kind, module)


def _signature(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({ast.unparse(node.args)}){returns}"
    return ""


def _n_words(text: str) -> int:
    return len(_WORD.findall(text))


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))
