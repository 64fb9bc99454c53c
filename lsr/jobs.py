"""Training and encoding spread over Ray; the work itself is done by the plain functions of `train` and `encode`.

Ray Data is handed numbers of pieces (see `gossamer.lsr.data.Piece`), not their content: the files are read where they
are needed, so they, and the folders written to, must be on storage that all workers see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.index.jobs import cpu_share, fit, in_order, own_errors, ray_session, spool
from gossamer.index.runs import RunFolder
from gossamer.kernels import errors
from gossamer.kernels.errors import ConfigError, GossamerError
from gossamer.lsr.data import PAIRS, Piece, are_joined, pieces, read_pairs, read_piece
from gossamer.lsr.encode import EncodingPlan, Progress, encode_piece, plan_encoding
from gossamer.lsr.encoder import Precision, SparseEncoder
from gossamer.lsr.formats import load_encoder
from gossamer.lsr.local import ENCODER_FOLDER, load_trainable, training_inputs
from gossamer.lsr.pairs import TokenPairs, tokenize_pairs
from gossamer.lsr.train import OnMetrics, TrainConfig, train

if TYPE_CHECKING:
    import ray.data

    from gossamer.kernels.collectives import World

_PAIR_PIECE_BYTES = 8 << 20
_TASK_CPUS = 0.5


def train_job(
    config: TrainConfig,
    pairs: Path | str,
    encoder: Path | str,
    run: Path | str,
    *,
    n_workers: int = 1,
    use_gpu: bool = False,
    resume: bool = False,
    address: str | None = None,
    on_metrics: OnMetrics | None = None,
) -> Path:
    """Trains an encoder under Ray Train, fed by Ray Data.

    Args:
        config: Settings.
        pairs: What `gossamer.lsr.data.read_pairs` reads.
        encoder: Folder of the encoder to start from.
        run: Run folder to make: metrics, checkpoints, curves, and at the end the trained encoder.
        n_workers: Workers; together they take the same steps as one.
        use_gpu: Whether each worker gets a GPU.
        resume: Go on with the run that is in the folder.
        address: Of a Ray cluster; see `gossamer.index.jobs.ray_session`.
        on_metrics: Called with each logged line while the job runs.

    Returns:
        Folder of the trained encoder, `<run>/encoder`.

    Raises:
        ExistsError: If the folder holds a run and `resume` is not set.
        ConfigError: If the run that is resumed began with other settings, pairs or another encoder.
        InputError: If there are no pairs.
        RecordError: If a line of the pairs cannot be read; the message names it.
        TrainingError: If the run collapsed, or its workers were lost too often.
        BackendError: If Ray cannot be reached.
    """
    if config.batch_size < n_workers:
        raise ConfigError(
            f"batch_size is {config.batch_size} for {n_workers} workers; give each at least one pair"
        )
    run, encoder = Path(run).resolve(), Path(encoder).resolve()
    inputs = training_inputs(pairs, load_trainable(encoder))
    folder = RunFolder.start(run, config, resume=resume, inputs=inputs)
    parts = _pair_pieces(pairs, folder.path)
    loop = partial(_train_worker, config, encoder, run, inputs, use_gpu=use_gpu)
    with ray_session(address):
        dataset = token_dataset(parts, encoder)
        fit(
            loop,
            datasets={"pairs": dataset},
            run_path=run,
            n_workers=n_workers,
            use_gpu=use_gpu,
            on_metrics=on_metrics,
        )
    folder.plot()
    return run / ENCODER_FOLDER


def encode_job(
    encoder: Path | str,
    corpus: Path | str,
    target: Path | str,
    *,
    n_actors: int = 2,
    use_gpu: bool = False,
    batch_size: int = 32,
    precision: Precision = "float32",
    replace: bool = False,
    changed: bool = False,
    address: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Encodes a corpus by a pool of Ray Data actors, each of which holds the encoder.

    A job that was killed is started again and goes on with the pieces that are missing.

    Args:
        encoder: Folder of the encoder.
        corpus: What `gossamer.lsr.data.read_corpus` reads.
        target: Folder to make: Parquet files of `SparseVectors` in the order of the corpus, and `encoder.json`.
        n_actors: Actors.
        use_gpu: Whether each actor gets a GPU.
        batch_size: Texts that an actor encodes at a time.
        precision: See `SparseEncoder`.
        replace: Whether vectors that are already there may be replaced.
        changed: Whether to replace them, and encode only what has changed since; see `encode_corpus`.
        address: Of a Ray cluster; see `gossamer.index.jobs.ray_session`.
        progress: Called with (pieces done, pieces in all).

    Returns:
        The target.

    Raises:
        ExistsError: If the target exists and is not to be replaced.
        InputError: If the corpus holds no document.
        RecordError: If a line of the corpus cannot be read; the message names it.
        BackendError: If Ray cannot be reached, or lost the job.
    """
    import ray

    encoder = Path(encoder).resolve()
    info = load_encoder(encoder).info
    replace = replace or changed
    plan = plan_encoding(
        info, Path(corpus).resolve(), target, replace=replace, precision=precision, changed=changed
    )
    missing = plan.missing()
    if not missing:
        return plan.finish(replace=replace)
    with ray_session(address):
        in_order()
        done = _numbered(missing).map_batches(
            _EncodePieces,
            fn_constructor_args=(encoder, plan, batch_size, precision, use_gpu),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(n_actors, len(missing))),
            num_cpus=cpu_share(n_actors),
            num_gpus=1 if use_gpu else None,
        )
        own_errors(partial(_follow, done, len(plan.pieces) - len(missing), len(plan.pieces), progress))
    return plan.finish(replace=replace)


# Training ----------------------------------------------------------------------------------------------------------


def _pair_pieces(path: Path | str, run: Path) -> tuple[Piece, ...]:
    """Pieces of the pairs; judged pairs, which are a join, are first written into the run folder."""
    path = Path(path).resolve()  # workers have other working directories
    if are_joined(path):
        joined = run / "pairs.parquet"
        batches = read_pairs(path)
        first = next(batches)
        with pq.ParquetWriter(joined, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        path = joined
    return tuple(pieces(path, PAIRS, piece_bytes=_PAIR_PIECE_BYTES))


def token_dataset(parts: Sequence[Piece], encoder: Path) -> ray.data.Dataset:
    """Token pairs of the pieces, in order; rows have `gossamer.lsr.pairs.SCHEMA`."""
    return _numbered(range(len(parts))).map_batches(
        partial(_tokenize, tuple(parts), encoder), batch_size=1, batch_format="pyarrow", num_cpus=_TASK_CPUS
    )


def _tokenize(parts: Sequence[Piece], encoder: Path, numbers: pa.Table) -> Iterator[pa.Table]:
    """A Ray Data task: piece numbers in, tables of token pairs out."""
    trained = _cached_encoder(encoder)
    for number in numbers.column("piece").to_pylist():
        for batch in read_piece(parts[number]):
            yield tokenize_pairs(batch, trained.tokenize_queries, trained.tokenize_documents)


@lru_cache(maxsize=1)
def _cached_encoder(path: Path) -> SparseEncoder:
    return load_trainable(path)


def _train_worker(
    config: TrainConfig, encoder: Path, run: Path, inputs: Mapping[str, str], world: World, *, use_gpu: bool
) -> None:
    """The loop of one worker; after a loss of workers it is called again and goes on from the last checkpoint."""
    trained = load_trainable(encoder)
    if use_gpu:
        from ray.train.torch import get_device

        trained.to(get_device())
    pairs = TokenPairs(own_errors(partial(spool, "pairs")))
    folder = RunFolder(run)
    if world.rank == 0:
        RunFolder.start(run, config, resume=True, inputs=inputs)  # cuts off what came after the checkpoint
    train(config, pairs, trained, folder, world)
    if world.rank == 0:
        trained.to("cpu").save(run / ENCODER_FOLDER, replace=True)


# Encoding ----------------------------------------------------------------------------------------------------------


class _EncodePieces:
    """A Ray Data actor: piece numbers in, Parquet parts on the disk, numbers of documents out."""

    def __init__(
        self, encoder: Path, plan: EncodingPlan, batch_size: int, precision: Precision, use_gpu: bool
    ) -> None:
        self._encoder = load_encoder(encoder, precision=precision)
        if use_gpu and isinstance(self._encoder, SparseEncoder):
            self._encoder.to("cuda")
        self._plan, self._known = plan, plan.known()
        self._batch_size = batch_size

    def __call__(self, numbers: pa.Table) -> pa.Table:
        counts: list[int] = []
        failure = None
        for number in numbers.column("piece").to_pylist():
            part = self._plan.part(number)
            try:
                counts.append(
                    encode_piece(
                        self._encoder,
                        self._plan.pieces[number],
                        part,
                        batch_size=self._batch_size,
                        known=self._known,
                    )
                )
            except GossamerError as error:  # goes back as a row: Ray would keep only its text
                failure = json.dumps([type(error).__name__, str(error)])
                counts.append(0)
        failures = pa.array([failure] * len(counts), pa.string())
        return numbers.append_column("n_documents", pa.array(counts)).append_column("failure", failures)


def _follow(done: ray.data.Dataset, n_before: int, n_pieces: int, progress: Progress | None) -> None:
    for number, row in enumerate(done.iter_rows(), start=n_before + 1):
        if row["failure"] is not None:
            kind, message = json.loads(row["failure"])
            raise getattr(errors, kind, GossamerError)(message)
        if progress is not None:
            progress(number, n_pieces)


# Ray ---------------------------------------------------------------------------------------------------------------


def _numbered(numbers: Sequence[int]) -> ray.data.Dataset:
    """A dataset with one block for each piece, in order."""
    import ray

    return ray.data.from_items([{"piece": number} for number in numbers], override_num_blocks=len(numbers))
