"""The default log: source files as users, the names they import as items.

Every machine with Python holds it, so a newcomer can judge the answers: the standard library and the
installed packages, each file with the dotted names it imports (`x.y` for `from x import y`, `a.b` for
`import a.b`; relative imports are left out, `from x import *` counts as `x`).

Names are found by line pattern. Parsing ten thousand files takes minutes, the pattern takes seconds, and
what it gets wrong (an import statement quoted in a docstring) is still a name that the file speaks of.
"""

import hashlib
import re
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.recsys.interactions import Interactions

_STATEMENT = re.compile(
    rb"^[ \t]*(?:"
    rb"from[ \t]+(?P<module>[A-Za-z_][\w.]*)[ \t]+import[ \t]*"
    rb"(?:\((?P<inside>[^)]*)\)|(?P<names>[^\n;()]+(?:(?<=\\)\n[^\n;()]+)*))"
    rb"|import[ \t]+(?P<modules>[^\n;()]+(?:(?<=\\)\n[^\n;()]+)*))",
    re.MULTILINE,
)
_COMMENT = re.compile(rb"#[^\n]*")
_NAME = re.compile(rb"(?P<name>[A-Za-z_][\w.]*|\*)(?:\s+as\s+[A-Za-z_]\w*)?")


class ImportsSummary(NamedTuple):
    """What `write_imports` found; it differs with the Python version and the installed packages."""

    path: Path
    n_users: int
    n_items: int
    n_interactions: int
    fingerprint: str


def imported_names(source: bytes) -> list[str]:
    """Returns the dotted names that a source file imports, sorted and unique.

    Args:
        source: the file's bytes. Names that are not ASCII are passed over.
    """
    found = set()
    for match in _STATEMENT.finditer(source):
        if match["modules"] is not None:
            found.update(_names(match["modules"]))
        else:
            module = match["module"].decode()
            listed = match["inside"] if match["inside"] is not None else match["names"]
            found.update(module if name == "*" else f"{module}.{name}" for name in _names(listed))
    return sorted(found)


def _names(listed: bytes) -> list[str]:
    """The names in `a, b as c, ...`; nothing at all where a part is no name, for then it was prose."""
    listed = _COMMENT.sub(b"", listed).replace(b"\\\n", b" ")
    parts = [part.strip() for part in listed.split(b",")]
    if parts and not parts[-1]:
        parts.pop()
    matches = [_NAME.fullmatch(part) for part in parts]
    return [match["name"].decode() for match in matches if match] if all(matches) else []


def source_files() -> Iterator[tuple[str, str, Path]]:
    """Yields (user id, package, file) for the standard library and the installed packages, sorted by id.

    The id is a relative path, such as `site-packages/ray/train/torch/config.py`: no machine's own path.
    """
    paths = sysconfig.get_paths()
    library = Path(paths["stdlib"])
    roots = [("stdlib", library)]
    roots += [("site-packages", Path(p)) for p in sorted({paths["purelib"], paths["platlib"]})]
    for root_name, root in roots:
        for file in sorted(root.rglob("*.py")):
            relative = file.relative_to(root)
            if root_name == "stdlib" and relative.parts[0] in {"site-packages", "dist-packages"}:
                continue
            top = relative.parts[0].removesuffix(".py")
            yield f"{root_name}/{relative.as_posix()}", top, file


def scan_imports(*, batch_files: int = 1_000) -> Iterator[pa.RecordBatch]:
    """Reads every source file; yields rows of (user, item, package), one an imported name, some files at a time."""
    files = source_files()
    while batch := list(islice(files, batch_files)):
        rows = [
            (user, name, package) for user, package, file in batch for name in imported_names(_read(file))
        ]
        columns = zip(*rows, strict=True) if rows else ([], [], [])
        yield pa.record_batch([pa.array(c, pa.string()) for c in columns], names=["user", "item", "package"])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a dangling link or an unreadable file imports nothing
        return b""


def write_imports(folder: str | Path, *, users: int = 5, items: int = 5) -> ImportsSummary:
    """Writes `interactions.parquet` (user, item, package) of the log and says what is in it.

    Args:
        folder: where to write; made if absent.
        users: fewest names a file must import (k-core).
        items: fewest files that must import a name (k-core).
    """
    log = Interactions.from_batches(scan_imports()).filter_k_core(users=users, items=items)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "interactions.parquet"
    table = log.table
    pq.write_table(table, path)
    digest = hashlib.sha256()
    for batch in table.select(["user", "item"]).to_batches(max_chunksize=65_536):
        digest.update("".join(f"{row['user']}\t{row['item']}\n" for row in batch.to_pylist()).encode())
    return ImportsSummary(path, log.n_users, log.n_items, len(log), digest.hexdigest()[:16])
