"""Bulk writes: a stream of documents, one JSON object a line, of any length.

Lines are read as fast as they are written: the next part of the body is taken from the client only when the last is on
the disk. A bad line is refused by its number, and the others are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from gossamer.kernels.errors import DeadlineError, InputError, NotReadyError, OverloadedError
from gossamer.serving.engine import Engine
from gossamer.serving.errors import describe
from gossamer.serving.records import BulkWritten, Document, RefusedLine, Written

_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 4 << 20
_MAX_REFUSED: Final = 1_000  # that are told; all are counted
_PATIENCE_S: Final = 30.0


async def write_lines(
    body: AsyncIterator[bytes], engine: Engine, is_stopping: Callable[[], bool] = lambda: False
) -> BulkWritten:
    """Write the documents of a body; see the module.

    Args:
        body: parts of any length.
        engine: of the collection.
        is_stopping: whether the service has been told to stop; then it ends with what is written.

    Raises:
        NotReadyError: the service stops; the message says how many lines were written.
        DeadlineError: a part did not arrive in time; likewise.
        InputError: nothing can be written to this collection.
        GossamerError: writing failed; what was acknowledged by no answer may be there.
    """
    report = _Report()
    batch: list[tuple[int, Document]] = []
    n_bytes = 0
    parts = _in_time(body, engine.limits.body_timeout_s, report)
    async for number, line in _lines(parts, engine.limits.max_body_bytes):
        report.n_lines += 1
        if isinstance(line, str):
            report.refuse(number, None, line)
            continue
        try:
            batch.append((number, Document.model_validate_json(line)))
            n_bytes += len(line)
        except ValidationError as error:
            report.refuse(number, None, describe(error.errors(include_url=False, include_context=False)))
        if len(batch) >= min(_AT_ONCE, engine.limits.max_documents) or n_bytes >= _BYTES_AT_ONCE:
            await _write(batch, engine, report)
            batch, n_bytes = [], 0
            if is_stopping():
                raise NotReadyError(f"the service is stopping; {report.so_far}")
    await _write(batch, engine, report)
    return report.answer()


class _Report:
    def __init__(self) -> None:
        self.n_lines = self.n_refused = self.n_added = self.n_replaced = 0
        self.version = ""
        self.refused: list[RefusedLine] = []

    def refuse(self, number: int, id_: str | None, message: str) -> None:
        self.n_refused += 1
        if len(self.refused) < _MAX_REFUSED:
            self.refused.append(RefusedLine(line=number, id=id_, message=message[:500]))

    def wrote(self, written: Written) -> None:
        self.n_added += written.n_added
        self.n_replaced += written.n_replaced
        self.version = written.version

    @property
    def so_far(self) -> str:
        n_written = self.n_added + self.n_replaced
        return f"of {self.n_lines:,} lines {n_written:,} are written and {self.n_refused:,} were refused"

    def answer(self) -> BulkWritten:
        self.refused.sort(key=lambda one: one.line)
        return BulkWritten(
            version=self.version,
            n_added=self.n_added,
            n_replaced=self.n_replaced,
            n_lines=self.n_lines,
            n_refused=self.n_refused,
            refused=self.refused,
        )


async def _in_time(body: AsyncIterator[bytes], timeout_s: float, report: _Report) -> AsyncIterator[bytes]:
    """The same parts, each of which has to arrive in time."""
    parts = aiter(body)
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), timeout_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineError(
                f"no more of the body arrived within {timeout_s:g} s; {report.so_far}"
            ) from None
        yield part


async def _lines(body: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[tuple[int, bytes | str]]:
    """Lines with something in them, by their numbers; instead of one that is too long, what is to be said of it."""
    number, rest, is_over = 1, b"", False
    async for chunk in body:
        *whole, last = chunk.split(b"\n")
        for part in whole:
            line = rest + part
            if is_over or len(line) > max_bytes:
                yield number, _too_long(max_bytes)
            elif line.strip():
                yield number, line
            number, rest, is_over = number + 1, b"", False
        rest += last
        if len(rest) > max_bytes:
            rest, is_over = b"", True
    if is_over:
        yield number, _too_long(max_bytes)
    elif rest.strip():
        yield number, rest


def _too_long(max_bytes: int) -> str:
    return f"the line is over {max_bytes:,} bytes: send a shorter document, or raise limits.max_body_bytes"


async def _write(batch: list[tuple[int, Document]], engine: Engine, report: _Report) -> None:
    for part in _without_repeats(batch):
        await _write_part(part, engine, report)


async def _write_part(part: list[tuple[int, Document]], engine: Engine, report: _Report) -> None:
    """All of them, or, if one of them cannot be written, each half."""
    try:
        report.wrote(await _patiently(engine, [document for _, document in part]))
    except InputError as error:
        if len(part) == 1:
            ((number, document),) = part
            report.refuse(number, document.id, str(error))
            return
        for half in (part[: len(part) // 2], part[len(part) // 2 :]):
            await _write_part(half, engine, report)


async def _patiently(engine: Engine, documents: list[Document]) -> Written:
    """Write, and wait while others write; the client waits, too, as nothing more is read from it."""
    waited_s, pause_s = 0.0, 0.05
    while True:
        try:
            return await run_in_threadpool(engine.put, documents)
        except OverloadedError:
            if waited_s > _PATIENCE_S:
                raise
            await asyncio.sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(1.0, 2 * pause_s)


def _without_repeats(batch: list[tuple[int, Document]]) -> Iterator[list[tuple[int, Document]]]:
    """The same in order, cut where an id comes again: the later line takes the place of the earlier."""
    part: list[tuple[int, Document]] = []
    ids: set[str] = set()
    for number, document in batch:
        if document.id in ids:
            yield part
            part, ids = [], set()
        part.append((number, document))
        ids.add(document.id)
    if part:
        yield part
