"""Training of a sparse encoder: plain steps and a loop, on one worker or as one of several.

Everything that changes from step to step (batch, learning rate, weight of the regularisers, dropout) is a pure function
of the seed and the step. Every worker computes the loss of the whole gathered batch, and gradients are summed. So a run
that was killed goes on from its last checkpoint to the result of one that was not: bit-equal on one worker.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from torch import Tensor

from gossamer.index.runs import RunFolder
from gossamer.kernels.collectives import World
from gossamer.kernels.errors import FormatError, TrainingError
from gossamer.lsr.encoder import SparseEncoder
from gossamer.lsr.losses import flops, infonce, quadratic, same_text
from gossamer.lsr.pairs import PairBatch, TokenPairs, Tokens

OnMetrics = Callable[[dict[str, float]], None]

_LENGTH_GROUPS = (
    4  # texts of a batch are encoded in groups of like length, so that little padding is computed
)
_EPS = 1e-6  # of Adam: gradients that are 0 but for rounding must not become whole steps, or workers would matter
_DENSE_SHARE = 0.9  # of the vocabulary: a batch this dense after the warm-up has collapsed


class TrainConfig(BaseModel):
    """How an encoder is trained; how texts are cut and weighted stands in its `EncoderConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: NonNegativeInt = 0
    steps: PositiveInt = 1_000
    batch_size: int = Field(default=64, ge=2)
    """Pairs in a step, of all workers together."""
    learning_rate: PositiveFloat = 5e-4
    table_learning_rate: PositiveFloat = 5e-3
    """Of the queries' table: its weights are far larger than those of a transformer."""
    warmup_steps: NonNegativeInt = 50
    """Steps over which learning rates rise; from there they fall in a straight line to 0 after the last step."""
    weight_decay: NonNegativeFloat = 0.01
    """Of matrices; biases, norms and the table have none."""
    max_gradient_norm: PositiveFloat | None = None
    scale: PositiveFloat = 1.0
    """Scores are multiplied by this before the softmax (one over its temperature)."""
    document_lambda: NonNegativeFloat = 1e-3
    """Weight of FLOPS on documents."""
    query_lambda: NonNegativeFloat = 0.0
    """Weight of FLOPS on queries. Where a table reads them it makes the weights of frequent terms smaller, down to 0;
    terms that a query does not hold have no weight in any case."""
    lambda_warmup_steps: NonNegativeInt = 200
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; weights and sums stay float32. `auto` takes bfloat16 where the processor computes in it."""
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 10


class TrainResult(NamedTuple):
    """The end of a run.

    Attributes:
        steps: Optimiser steps that the encoder has had, those before a resume included.
        seconds: Wall time of this call.
        metrics: The last logged line.
    """

    steps: int
    seconds: float
    metrics: dict[str, float]


class StepLosses(NamedTuple):
    """Parts of a step's loss, and what is watched beside it.

    Attributes:
        loss: Scalar that is minimised.
        ranking: Its InfoNCE part, in nats.
        regulariser: Its FLOPS part.
        query_nnz_B: Non-zeros of each query of the whole batch.
        document_nnz_N: Non-zeros of each document of the whole batch.
    """

    loss: Tensor
    ranking: Tensor
    regulariser: Tensor
    query_nnz_B: Tensor  # noqa: N815 (shape suffix)
    document_nnz_N: Tensor  # noqa: N815


def train(
    config: TrainConfig,
    pairs: TokenPairs,
    encoder: SparseEncoder,
    run: RunFolder,
    world: World | None = None,
    *,
    on_metrics: OnMetrics | None = None,
) -> TrainResult:
    """Trains an encoder in place, from the run's last checkpoint if it has one.

    Args:
        config: Settings.
        pairs: All training pairs, the same on every worker.
        encoder: Encoder; the same on every worker.
        run: Folder for checkpoints and metrics; only worker 0 writes.
        world: This worker's place; by default that of the initialised process group.
        on_metrics: Called on worker 0 with each logged line (`step`, `loss`, `ranking`, `regulariser`, `query_nnz`,
            `document_nnz`, `learning_rate`, `seconds`).

    Returns:
        What the run came to.

    Raises:
        TrainingError: If the loss is not finite, or vectors became empty or dense.
        FormatError: If the checkpoint is of another model.
    """
    world = world or World.current()
    started = time.perf_counter()
    optimizer = make_optimizer(config, encoder)
    step = _restore(run, encoder, optimizer)
    line: dict[str, float] = dict(run.metrics()[-1]) if step and run.metrics() else {}
    encoder.model.train()
    with torch.random.fork_rng(devices=[]):
        while step < config.steps:
            rate = set_learning_rate(config, optimizer, step)
            losses = train_step(config, pairs, encoder, optimizer, step=step, world=world)
            check_collapse(config, losses, step, encoder.n_terms)
            step += 1
            last = step == config.steps
            if world.rank == 0 and (last or step % config.log_every == 0):
                line = {**summary(losses), "learning_rate": rate, "seconds": time.perf_counter() - started}
                run.log(step, **line)
                line = {"step": step, **line}
                if on_metrics is not None:
                    on_metrics(line)
            if world.rank == 0 and (last or step % config.checkpoint_every == 0):
                run.save_checkpoint(step, _tensors(encoder, optimizer))
    encoder.model.eval()
    return TrainResult(step, time.perf_counter() - started, line)


def train_step(
    config: TrainConfig,
    pairs: TokenPairs,
    encoder: SparseEncoder,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    world: World,
) -> StepLosses:
    """One optimiser step on batch `step`; the result is the same on every worker."""
    batch = pairs.batch(config.seed, step, config.batch_size, world.share(config.batch_size))
    torch.manual_seed((config.seed * 1_000_003 + step) * 1_009 + world.rank)  # dropout, where a model has it
    losses = batch_losses(config, batch, encoder, step, world)
    optimizer.zero_grad(set_to_none=True)
    losses.loss.backward()  # type: ignore[no-untyped-call]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    world.sum_gradients(trained)
    if config.max_gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(trained, config.max_gradient_norm)
    optimizer.step()
    encoder.model.after_step()
    return losses


def batch_losses(
    config: TrainConfig, batch: PairBatch, encoder: SparseEncoder, step: int, world: World
) -> StepLosses:
    """The loss of a whole batch, of which this worker encodes its own part."""
    half = torch.bfloat16 if uses_bfloat16(config, encoder) else None
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=half is not None):
        model = encoder.model
        queries_BV = encode_in_groups(model.encode_queries_tensor, batch.queries, encoder, half)
        parts = [encode_in_groups(model.encode_documents_tensor, batch.documents, encoder, half)]
        if batch.negatives:
            parts.append(encode_in_groups(model.encode_documents_tensor, batch.negatives, encoder, half))
    queries_BV = world.gather_rows(queries_BV, config.batch_size)
    documents_NV = torch.cat([world.gather_rows(part_BV, config.batch_size) for part_BV in parts])
    keys = [torch.from_numpy(numbers.copy()) for numbers in (batch.query_keys, batch.document_keys)]
    scores_BN = config.scale * (queries_BV @ documents_NV.T)
    ranking = infonce(scores_BN, masked_BN=same_text(*keys).to(scores_BN.device))
    share = quadratic(step, config.lambda_warmup_steps)
    regulariser = share * (
        config.document_lambda * flops(documents_NV) + config.query_lambda * flops(queries_BV)
    )
    return StepLosses(
        ranking + regulariser,
        ranking.detach(),
        regulariser.detach(),
        (queries_BV.detach() > 0).sum(dim=1),
        (documents_NV.detach() > 0).sum(dim=1),
    )


def encode_in_groups(
    encode: Callable[..., Tensor], tokens: Tokens, encoder: SparseEncoder, matmul_dtype: torch.dtype | None
) -> Tensor:
    """Encodes texts in groups of like length.

    Args:
        encode: `encode_documents_tensor` or `encode_queries_tensor` of the encoder's model.
        tokens: Token lists.
        encoder: Encoder, which pads.
        matmul_dtype: As for `encode`.

    Returns:
        `[B, V]` float32, in the order of `tokens`.
    """
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    groups = list(_groups(order, _LENGTH_GROUPS if encoder.device.type == "cpu" else 1))
    encoded = [
        encode(*encoder.pad([tokens[row] for row in group]), matmul_dtype=matmul_dtype).float()
        for group in groups
    ]
    place = torch.empty(len(order), dtype=torch.int64, device=encoder.device)
    place[torch.tensor(order, device=encoder.device)] = torch.arange(len(order), device=encoder.device)
    return torch.cat(encoded)[place]


def _groups(order: Sequence[int], n_groups: int) -> Iterator[Sequence[int]]:
    size = max(1, math.ceil(len(order) / n_groups))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def uses_bfloat16(config: TrainConfig, encoder: SparseEncoder) -> bool:
    """Whether matrix products are computed in bfloat16 where the encoder lies."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if encoder.device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


# Optimiser ---------------------------------------------------------------------------------------------------------


def make_optimizer(config: TrainConfig, encoder: SparseEncoder) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over matrices, other weights, and the queries' table."""
    model = encoder.model
    table = [] if model.query_table is None else list(model.query_table.parameters())
    rest = [parameter for parameter in model.document.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        {
            "params": [p for p in table if p.requires_grad],
            "weight_decay": 0.0,
            "full_rate": config.table_learning_rate,
        },
    ]
    for group in groups:
        group.setdefault("full_rate", config.learning_rate)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=0.0, betas=(0.9, 0.98), eps=_EPS
    )


def set_learning_rate(config: TrainConfig, optimizer: torch.optim.Optimizer, step: int) -> float:
    """Sets every group's rate for a step; returns the transformer's."""
    share = learning_rate_share(config, step)
    for group in optimizer.param_groups:
        group["lr"] = share * group["full_rate"]
    return share * config.learning_rate


def learning_rate_share(config: TrainConfig, step: int) -> float:
    """The share of the full learning rate at a step: up during the warm-up, then straight down."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    return (config.steps - step) / max(1, config.steps - config.warmup_steps)


# Watching ----------------------------------------------------------------------------------------------------------


def summary(losses: StepLosses) -> dict[str, float]:
    """The figures of a step that are logged."""
    return {
        "loss": float(losses.loss.detach()),
        "ranking": float(losses.ranking),
        "regulariser": float(losses.regulariser),
        "query_nnz": float(losses.query_nnz_B.float().mean()),
        "document_nnz": float(losses.document_nnz_N.float().mean()),
        "empty_documents": float((losses.document_nnz_N == 0).float().mean()),
    }


def check_collapse(config: TrainConfig, losses: StepLosses, step: int, n_terms: int) -> None:
    """Stops a run that cannot come to anything.

    Raises:
        TrainingError: If the loss is not finite, most vectors are empty, or documents are dense though the
            regulariser has its full weight. The message gives the remedy.
    """
    if not torch.isfinite(losses.loss):
        raise TrainingError(
            f"the loss is {float(losses.loss.detach())} at step {step}: lower learning_rate "
            f"(now {config.learning_rate:g}) or scale, or set max_gradient_norm"
        )
    for name, nnz in (("query", losses.query_nnz_B), ("document", losses.document_nnz_N)):
        empty = float((nnz == 0).float().mean())
        if empty > 0.5:
            raise TrainingError(
                f"{empty:.0%} of the {name} vectors are empty at step {step}: lower {name}_lambda "
                f"(now {getattr(config, f'{name}_lambda'):g}) or learning_rate, or lengthen lambda_warmup_steps"
            )
    density = float(losses.document_nnz_N.float().mean()) / n_terms
    if step >= config.lambda_warmup_steps and density > _DENSE_SHARE:
        raise TrainingError(
            f"documents use {density:.0%} of all {n_terms:,} terms at step {step}: raise document_lambda "
            f"(now {config.document_lambda:g}) or shorten lambda_warmup_steps"
        )


# Checkpoints -------------------------------------------------------------------------------------------------------


def _tensors(encoder: SparseEncoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimiser state by name; a tied weight stands there once."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in encoder.model.named_parameters():
        tensors[f"model/{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    return tensors


def _restore(run: RunFolder, encoder: SparseEncoder, optimizer: torch.optim.Optimizer) -> int:
    """Loads the last checkpoint; returns the number of steps it has had."""
    found = run.load_checkpoint()
    if found is None:
        return 0
    tensors, state = found
    for name, parameter in encoder.model.named_parameters():
        saved = tensors.get(f"model/{name}")
        if saved is None or saved.shape != parameter.shape:
            there = "nothing" if saved is None else f"shape {tuple(saved.shape)}"
            raise FormatError(
                f"the checkpoint in {run.path} has {there} for {name!r}, expected {tuple(parameter.shape)}: "
                "start from the encoder that the run began with, or take another run folder"
            )
        with torch.no_grad():
            parameter.copy_(saved)
    for name, parameter in encoder.model.named_parameters():
        own = {
            key.split("/", 2)[1]: key
            for key in tensors
            if key.startswith("optimizer/") and key.endswith(f"/{name}")
        }
        if own:
            optimizer.state[parameter] = {
                key: tensors[full] if key == "step" else tensors[full].to(parameter.device)
                for key, full in own.items()
            }
    return int(state["step"])
