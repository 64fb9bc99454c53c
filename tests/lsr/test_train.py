import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer.index.runs import RunFolder
from gossamer.kernels.collectives import World
from gossamer.kernels.errors import FormatError, TrainingError
from gossamer.lsr import train as train_module
from gossamer.lsr.data import read_pairs
from gossamer.lsr.encoder import SparseEncoder
from gossamer.lsr.pairs import TokenPairs, spool_pairs
from gossamer.lsr.train import TrainConfig, batch_losses, learning_rate_share, train
from tests.lsr.tiny import tiny_encoder

CONFIG = TrainConfig(
    steps=12,
    batch_size=8,
    learning_rate=5e-3,
    table_learning_rate=2e-2,
    warmup_steps=3,
    lambda_warmup_steps=5,
    precision="float32",
    checkpoint_every=5,
    log_every=3,
)


@pytest.fixture
def pairs(collection: Path, tmp_path: Path) -> TokenPairs:
    encoder = tiny_encoder(collection)
    file = tmp_path / "pairs.arrow"
    return spool_pairs(read_pairs(collection), file, encoder.tokenize_queries, encoder.tokenize_documents)


def weights(encoder: SparseEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}


def metrics(run: RunFolder) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]


class KilledError(Exception):
    pass


def kill_at(step: int) -> Callable[..., Any]:
    real = train_module.train_step

    def step_or_die(*args: Any, **settings: Any) -> Any:
        if settings["step"] == step:
            raise KilledError
        return real(*args, **settings)

    return step_or_die


def test_a_killed_run_goes_on_to_the_very_same_result(
    collection: Path, pairs: TokenPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_encoder(collection)
    straight = RunFolder.start(tmp_path / "straight", CONFIG)
    finished = train(CONFIG, pairs, whole, straight)

    broken = tiny_encoder(collection)
    run = RunFolder.start(tmp_path / "broken", CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_step", kill_at(7))
        with pytest.raises(KilledError):
            train(CONFIG, pairs, broken, run)
    assert run.last_step() == 5

    resumed = tiny_encoder(collection)
    again = RunFolder.start(tmp_path / "broken", CONFIG, resume=True)
    assert train(CONFIG, pairs, resumed, again).steps == finished.steps == 12
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert metrics(again) == metrics(straight)
    assert [line["step"] for line in metrics(straight)] == [3, 6, 9, 12]


SCRIPT = """
import sys
from pathlib import Path
from gossamer.index.runs import RunFolder
from gossamer.lsr.data import read_pairs
from gossamer.lsr.pairs import spool_pairs
from gossamer.lsr.train import train
from tests.lsr.test_train import CONFIG
from tests.lsr.tiny import tiny_encoder
collection, place = Path(sys.argv[1]), Path(sys.argv[2])
encoder = tiny_encoder(collection)
pairs = spool_pairs(
    read_pairs(collection), place / "pairs.arrow", encoder.tokenize_queries, encoder.tokenize_documents
)
def report(line):
    print(line["step"], flush=True)
    while line["step"] == 6:  # a checkpoint is at 5
        pass
train(CONFIG, pairs, encoder, RunFolder.start(place / "run", CONFIG), on_metrics=report)
"""


def test_a_process_that_is_killed_goes_on(collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": f"{root / '.editable'}{os.pathsep}{root}",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-c", SCRIPT, str(collection), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "6":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    run = RunFolder.start(tmp_path / "run", CONFIG, resume=True)
    assert run.last_step() == 5
    resumed = tiny_encoder(collection)
    train(CONFIG, pairs, resumed, run)

    expected = tiny_encoder(collection)
    train(CONFIG, pairs, expected, RunFolder.start(tmp_path / "straight", CONFIG))
    for name, tensor in weights(expected).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_training_brings_pairs_together(collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
    encoder = tiny_encoder(collection)
    config = CONFIG.model_copy(update={"steps": 60, "log_every": 1})
    train(config, pairs, encoder, RunFolder.start(tmp_path / "run", config))
    ranking = [line["ranking"] for line in metrics(RunFolder(tmp_path / "run"))]
    assert sum(ranking[-10:]) < 0.8 * sum(ranking[:10])
    assert encoder.model.query_table is not None
    assert bool((encoder.model.query_table.weight >= 0).all())


def test_the_regulariser_makes_documents_sparser(collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 1.0):
        config = CONFIG.model_copy(update={"steps": 40, "document_lambda": weight})
        run = RunFolder.start(tmp_path / f"run-{weight}", config)
        found[weight] = train(config, pairs, tiny_encoder(collection), run).metrics["document_nnz"]
    assert found[1.0] < 0.8 * found[0.0]


def test_the_loss_is_that_of_the_whole_batch_on_every_worker(collection: Path, pairs: TokenPairs) -> None:
    """Two workers in one process: each gathers the other's rows by encoding them without gradients."""
    encoder = tiny_encoder(collection)

    def gradients(losses: torch.Tensor) -> list[torch.Tensor]:
        encoder.model.zero_grad()
        losses.backward()  # type: ignore[no-untyped-call]
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in encoder.model.parameters()]

    one = batch_losses(CONFIG, pairs.batch(0, 0, 8), encoder, 9, World())
    expected = gradients(one.loss)
    summed = [torch.zeros_like(gradient) for gradient in expected]
    for rank in range(2):
        world = PretendWorld(rank, 2)
        world.others = pairs.batch(0, 0, 8), encoder
        losses = batch_losses(CONFIG, pairs.batch(0, 0, 8, world.share(8)), encoder, 9, world)
        torch.testing.assert_close(losses.loss, one.loss)
        for total, part in zip(summed, gradients(losses.loss), strict=True):
            total.add_(part)
    for total, whole in zip(summed, expected, strict=True):
        torch.testing.assert_close(total, whole, atol=1e-6, rtol=1e-5)


class PretendWorld(World):
    """A world whose other workers' rows are computed here."""

    others: Any

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    calls = 0

    def gather_rows(self, local: torch.Tensor, n: int) -> torch.Tensor:
        batch, encoder = self.others
        tokens, encode = (
            (batch.queries, encoder.model.encode_queries_tensor),
            (batch.documents, encoder.model.encode_documents_tensor),
        )[self.calls]
        self.calls += 1
        with torch.no_grad():
            whole = encode(*encoder.pad(tokens)).clone()
        own = self.share(n)
        return torch.cat([whole[: own.start], local, whole[own.stop :]])


class TestCollapse:
    def run(
        self, collection: Path, pairs: TokenPairs, tmp_path: Path, change: Callable[[SparseEncoder], None]
    ) -> None:
        encoder = tiny_encoder(collection)
        with torch.no_grad():
            change(encoder)
        train(CONFIG, pairs, encoder, RunFolder.start(tmp_path / "run", CONFIG))

    def test_empty_documents(self, collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="100% of the document vectors are empty at step 0"):
            self.run(collection, pairs, tmp_path, lambda e: e.model.document.model.decoder.bias.fill_(-50))

    def test_dense_documents(self, collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="raise document_lambda"):
            self.run(collection, pairs, tmp_path, lambda e: e.model.document.model.decoder.bias.fill_(50))

    def test_a_loss_that_is_not_finite(self, collection: Path, pairs: TokenPairs, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="loss is nan at step 0: lower learning_rate"):
            self.run(
                collection, pairs, tmp_path, lambda e: e.model.document.model.decoder.bias.fill_(float("nan"))
            )


def test_a_checkpoint_of_another_model_is_refused(
    collection: Path, pairs: TokenPairs, tmp_path: Path
) -> None:
    run = RunFolder.start(tmp_path / "run", CONFIG)
    run.save_checkpoint(5, {"model/other": torch.zeros(2)})
    with pytest.raises(FormatError, match="the encoder that the run began with"):
        train(CONFIG, pairs, tiny_encoder(collection), run)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    shares = [learning_rate_share(CONFIG, step) for step in range(CONFIG.steps)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert shares[3] == 1
    assert shares == [*shares[:4], *sorted(shares[4:], reverse=True)]
    assert 0 < shares[-1] < 0.2
