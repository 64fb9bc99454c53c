"""Training in this process, from files to files: what `gossamer.lsr.jobs.train_job` does, without Ray."""

import hashlib
from pathlib import Path

from gossamer.index.runs import RunFolder
from gossamer.kernels.errors import ConfigError, InputError
from gossamer.lsr.data import pair_files, read_pairs
from gossamer.lsr.encoder import SparseEncoder
from gossamer.lsr.formats import load_encoder
from gossamer.lsr.pairs import spool_pairs
from gossamer.lsr.train import OnMetrics, TrainConfig, train

ENCODER_FOLDER = "encoder"


def load_trainable(path: Path | str) -> SparseEncoder:
    """Loads an encoder that has weights to train.

    Raises:
        ConfigError: If it has none, as BM25.
    """
    encoder = load_encoder(path)
    if not isinstance(encoder, SparseEncoder):
        raise ConfigError(
            f"{path} is a {type(encoder).__name__}, which has nothing to train; give a SparseEncoder"
        )
    return encoder


def training_inputs(pairs: Path | str, encoder: SparseEncoder) -> dict[str, str]:
    """Fingerprints of what a run learns from, by which a resumed run knows it again (see `RunFolder.start`).

    Raises:
        InputError: If there are no pairs.
        RecordError: If one of the first lines cannot be read.
    """
    files = pair_files(pairs)
    if next(read_pairs(pairs), None) is None:
        raise InputError(
            f"{', '.join(map(str, files))}: there are no training pairs; expected query and document in each line, "
            "or judged pairs of which both have a text"
        )
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return {"pairs": " ".join(digests), "encoder": encoder.info.fingerprint}


def train_files(
    config: TrainConfig,
    pairs: Path | str,
    encoder: Path | str,
    run: Path | str,
    *,
    resume: bool = False,
    on_metrics: OnMetrics | None = None,
) -> Path:
    """Trains an encoder on a file of pairs.

    Args:
        config: Settings.
        pairs: What `gossamer.lsr.data.read_pairs` reads.
        encoder: Folder of the encoder to start from.
        run: Run folder to make: metrics, checkpoints, curves, and at the end the trained encoder.
        resume: Go on with the run that is in the folder.
        on_metrics: See `train`.

    Returns:
        Folder of the trained encoder, `<run>/encoder`.

    Raises:
        ExistsError: If the folder holds a run and `resume` is not set.
        ConfigError: If the run that is resumed began with other settings, pairs or another encoder.
        InputError: If there are no pairs.
        RecordError: If a line of the pairs cannot be read; the message names it.
        TrainingError: If the run collapsed.
    """
    trained = load_trainable(encoder)
    folder = RunFolder.start(run, config, resume=resume, inputs=training_inputs(pairs, trained))
    tokens = spool_pairs(
        read_pairs(pairs), folder.path / "pairs.arrow", trained.tokenize_queries, trained.tokenize_documents
    )
    train(config, tokens, trained, folder, on_metrics=on_metrics)
    trained.save(folder.path / ENCODER_FOLDER, replace=True)
    folder.plot()
    return folder.path / ENCODER_FOLDER
