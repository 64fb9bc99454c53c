"""Training from files to files."""

import shutil
from pathlib import Path

import pytest

from gossamer.kernels.errors import ConfigError
from gossamer.lsr.local import load_trainable, train_files
from gossamer.lsr.train import TrainConfig

CONFIG = TrainConfig(steps=2, batch_size=4, warmup_steps=1, precision="float32", log_every=1)


def test_a_run_goes_on_with_the_same_inputs_only(
    collection: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    pairs, run = tmp_path / "pairs.jsonl", tmp_path / "run"
    shutil.copy(collection / "pairs.jsonl", pairs)
    trained = train_files(CONFIG, pairs, encoder_folder, run)
    assert (run / "metrics.png").is_file()
    other_name = shutil.copy(pairs, tmp_path / "moved.jsonl")
    assert train_files(CONFIG, other_name, encoder_folder, run, resume=True) == trained
    start = load_trainable(trained)
    start.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="input encoder"):
        train_files(CONFIG, pairs, tmp_path / "other", run, resume=True)
    with pairs.open("a") as file:
        file.write('{"query": "otter", "document": "the answer of the test"}\n')
    with pytest.raises(ConfigError, match="input pairs"):
        train_files(CONFIG, pairs, encoder_folder, run, resume=True)


def test_judged_pairs_are_told_apart_by_the_judgements(
    collection: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(collection, tmp_path / "collection")
    (folder / "pairs.jsonl").unlink()
    judged = (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "train.tsv")
    train_files(CONFIG, folder, encoder_folder, tmp_path / "run")
    judged.write_text("".join(judged.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(ConfigError, match="input pairs"):
        train_files(CONFIG, folder, encoder_folder, tmp_path / "run", resume=True)
