"""Ray, for every job: one session, one way to spread work, to train on workers, to feed them, and to ask actors.

Nothing here knows what is trained. A job hands `fit` a plain function, which runs on every worker with the same
arguments; it reads its input with `spool` and keeps its state in a `RunFolder` on storage that all workers see.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from gossamer.kernels import errors
from gossamer.kernels.errors import BackendError, GossamerError, InputError, TrainingError

if TYPE_CHECKING:
    import ray.data

    from gossamer.index.inverted import InvertedIndex
    from gossamer.kernels.collectives import World

T = TypeVar("T")
R = TypeVar("R")
_FAILURE = "failure.json"
_POLL_S = 0.5
_RETRIES = 3  # of a question whose actor is lost


@contextmanager
def ray_session(address: str | None = None, *, n_cpus: int | None = None) -> Iterator[None]:
    """Use the running Ray session, connect to a cluster, or start a small local one and end it afterwards.

    Args:
        address: of a cluster; None means `RAY_ADDRESS` if it is set (as inside `ray job submit`), else a local start.
        n_cpus: size of a local start; None means all cores.

    Raises:
        BackendError: if the cluster cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_AUTH_MODE", "token" if "RAY_AUTH_TOKEN" in os.environ else "disabled")
    # Ray changes its workers' environment when it sees `uv run` or counts accelerators; neither is wanted here.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # else every fit waits for a slow clock
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is None:
            store = 256 * 1024 * 1024
            ray.init("local", num_cpus=n_cpus, object_store_memory=store, include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"Ray at {address or 'this machine'} could not be used: {error}. Check the address and RAY_AUTH_MODE."
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def own_errors(call: Callable[[], T]) -> T:
    """Call, and raise an error of ours that a Ray task ended with as itself.

    Raises:
        GossamerError: That error.
        BackendError: If Ray failed otherwise.
    """
    try:
        return call()
    except Exception as error:
        cause: Any = error
        while cause is not None and type(cause).__module__ != GossamerError.__module__:
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        raise BackendError(f"Ray could not finish this job: {error}. Start it again to go on.") from error


def spread(
    work: Callable[[T], R],
    items: Sequence[T],
    on_done: Callable[[int], None] | None = None,
    *,
    n_workers: int,
    max_losses: int = 3,
) -> list[R]:
    """Call `work(item)` for every item in Ray tasks, some at a time; one whose worker was lost is called again.

    Args:
        work: a plain function; what it reads and writes is on storage that all workers see.
        items: one a call.
        on_done: called here with how many are done, after each.
        n_workers: how many calls there are at a time.
        max_losses: how often one item may lose its worker.

    Returns:
        The results in the order of the items.

    Raises:
        GossamerError: the error of ours that a call ended with; calls that run are cancelled.
        BackendError: a call lost its worker too often, or Ray failed otherwise.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=max_losses)(_call)
    shared = ray.put(work)
    results: list[Any] = [None] * len(items)
    running: dict[Any, int] = {}
    waiting = iter(enumerate(items))
    n_done = 0
    try:
        while n_done < len(items):
            while len(running) < n_workers and (following := next(waiting, None)) is not None:
                running[task.remote(shared, following[1])] = following[0]
            for done in ray.wait(list(running), num_returns=1)[0]:
                results[running[done]] = own_errors(partial(ray.get, done))
                del running[done]
                n_done += 1
                if on_done is not None:
                    on_done(n_done)
    finally:
        for left in running:
            ray.cancel(left, force=True)
    return results


def _call(work: Callable[[T], R], item: T) -> R:
    return work(item)


def build_job(
    path: str | Path,
    source: str | Path,
    *,
    n_workers: int = 1,
    address: str | None = None,
    **options: Any,
) -> InvertedIndex:
    """Build an index with the work on its shards in Ray tasks; see `build_spread`.

    A worker that is lost costs its shard only, and a job that was killed is started again and goes on.

    Args:
        path: the folder to make, on storage that all workers see.
        source: Parquet files, where all workers see them.
        n_workers: shards that are worked on at a time; the processor that joins them takes as many threads.
        address: of a Ray cluster; see `ray_session`.
        options: the others of `build_spread`.

    Raises:
        BackendError: Ray cannot be reached, or lost workers too often.
        GossamerError: as `build_spread`.
    """
    from gossamer.index.spread_build import build_spread

    if n_workers < 1:
        raise InputError(f"n_workers is {n_workers}; give at least 1.")
    n_threads = min(n_workers, os.cpu_count() or 1)
    with ray_session(address, n_cpus=n_workers):
        return build_spread(
            path, source, spread=partial(spread, n_workers=n_workers), n_threads=n_threads, **options
        )


def cpu_share(n_workers: int) -> float:
    """CPUs to reserve for each worker: half of one where the cluster is small, or Ray Data would starve."""
    import ray

    return 1.0 if ray.cluster_resources().get("CPU", 1) >= 2 * n_workers + 2 else 0.5


def in_order() -> None:
    """Let Ray Data keep the order of rows, so that what a job writes or learns does not depend on timing."""
    import ray

    ray.data.DataContext.get_current().execution_options.preserve_order = True


def fit(
    loop: Callable[[World], None],
    *,
    datasets: Mapping[str, ray.data.Dataset],
    run_path: Path,
    n_workers: int = 1,
    use_gpu: bool = False,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
    max_failures: int = 2,
) -> None:
    """Run `loop(world)` on every worker of a Ray Train group; a group that loses a worker starts again.

    Args:
        loop: the training function; it resumes by itself from the run folder at `run_path`.
        datasets: what `spool(name)` reads on the workers, whole and in order on each.
        run_path: the run folder, on storage that all workers see.
        n_workers: how many workers.
        use_gpu: give each worker a GPU.
        on_metrics: called here with each line that the run logs, while it runs.
        max_failures: how many lost workers to survive.

    Raises:
        GossamerError: the error of ours that ended the loop on a worker.
        TrainingError: if the workers ended otherwise.
    """
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    run_path = run_path.resolve()
    run_path.mkdir(parents=True, exist_ok=True)
    (run_path / _FAILURE).unlink(missing_ok=True)
    in_order()
    resources = {"CPU": cpu_share(n_workers), **({"GPU": 1} if use_gpu else {})}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"loop": loop, "run_path": str(run_path), "n_workers": n_workers},
        scaling_config=ScalingConfig(num_workers=n_workers, use_gpu=use_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name="ray", storage_path=str(run_path), failure_config=FailureConfig(max_failures=max_failures)
        ),
        datasets=dict(datasets),
        dataset_config=DataConfig(datasets_to_split=[]),
    )
    with _follow(run_path / "metrics.jsonl", on_metrics):
        try:
            trainer.fit()
        except Exception as error:
            _raise_failure(run_path)
            raise TrainingError(
                f"the workers of {run_path} ended: {error}. Start the job again to go on from the last checkpoint."
            ) from error
    _raise_failure(run_path)


def _raise_failure(run_path: Path) -> None:
    """Raise the error of ours that a worker left behind, if one did."""
    if (run_path / _FAILURE).exists():
        failure = json.loads((run_path / _FAILURE).read_text(encoding="utf-8"))
        raise getattr(errors, failure["type"], GossamerError)(failure["message"])


def _worker(config: dict[str, Any]) -> None:
    """What Ray Train calls on each worker; an error of ours ends the run instead of being tried again."""
    import torch

    from gossamer.kernels.collectives import World

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config["n_workers"]))
    world = World.current()
    try:
        config["loop"](world)
    except GossamerError as error:
        failure = {"type": type(error).__name__, "message": str(error)}
        (Path(config["run_path"]) / _FAILURE).write_text(json.dumps(failure), encoding="utf-8")
        if world.rank > 0:  # the others may not have met it, and wait in a collective: end the group
            raise
    else:
        if world.rank == 0:  # of an attempt that was made good
            (Path(config["run_path"]) / _FAILURE).unlink(missing_ok=True)


def spool(name: str) -> pa.Table:
    """On a worker: stream a dataset of the job into a local Arrow file and map it.

    Training needs random rows (batch t is a function of the seed and t), a stream has none; the file costs disk, not
    memory, and is gone with the worker.
    """
    import ray.train

    handle, path = tempfile.mkstemp(suffix=".arrow", prefix="gossamer-")
    os.close(handle)
    writer = None
    batches = ray.train.get_dataset_shard(name).iter_batches(batch_size=8192, batch_format="pyarrow")
    for batch in batches:
        if writer is None:
            writer = pa.ipc.new_file(path, batch.schema)
        writer.write_table(batch)
    if writer is None:
        raise TrainingError(f"the dataset {name!r} of this job has no rows; check its input files.")
    writer.close()
    table = pa.ipc.open_file(pa.memory_map(path)).read_all()
    Path(path).unlink()  # the mapping keeps the bytes until the worker ends
    return table


class Actors:
    """Objects in processes of their own, on the machines of the running Ray session, that are all asked at once.

    One that is lost is started anew with what it was made of, and asked again.

    Args:
        kind: their class.
        arguments: what each is made of.

    Raises:
        BackendError: there is no Ray session.
    """

    def __init__(self, kind: type[Any], arguments: Sequence[tuple[Any, ...]]) -> None:
        import ray

        if not ray.is_initialized():
            raise BackendError("there is no Ray session; start actors inside of `ray_session()`.")
        made = ray.remote(kind).options(
            num_cpus=cpu_share(len(arguments)),
            max_restarts=-1,
            max_task_retries=_RETRIES,
            scheduling_strategy="SPREAD",
        )
        self._actors = [made.remote(*some) for some in arguments]

    def __len__(self) -> int:
        return len(self._actors)

    def shared(self, value: Any) -> Any:
        """A value to be passed to all, put where all can read it."""
        import ray

        return ray.put(value)

    def ask(self, name: str, *args: Any) -> list[Any]:
        """What a method of each answers; if any of them fail, the error of the first.

        Raises:
            BackendError: the actors were ended, or one was lost again and again.
        """
        if not self._actors:
            raise BackendError("these actors were ended; start others.")
        answers = [_answer(asked) for asked in [getattr(actor, name).remote(*args) for actor in self._actors]]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def end(self) -> None:
        """End their processes."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


def _answer(asked: Any) -> Any:
    """What an actor answers, or the error that it raised."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(asked)
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, GossamerError) else error
    except RayActorError as error:
        return BackendError(f"an actor was lost again and again: {error}")


@contextmanager
def _follow(path: Path, on_metrics: Callable[[dict[str, float]], None] | None) -> Iterator[None]:
    """Call back with each new line of a growing JSONL file until the body ends."""
    if on_metrics is None:
        yield
        return
    done = threading.Event()
    seen = 0

    def read() -> None:
        nonlocal seen
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        for line in lines[seen:]:
            on_metrics(json.loads(line))
        seen = max(seen, len(lines))

    def watch() -> None:
        while not done.wait(_POLL_S):
            read()

    thread = threading.Thread(target=watch, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        read()
