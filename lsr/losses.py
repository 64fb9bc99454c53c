"""Losses and regularisers: functions of a whole (gathered) batch of vectors, with no state.

That a function sees the whole batch and that a weight depends on the optimiser step alone is what makes a run the same
on one worker and on several, and the same after it was killed and resumed.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def infonce(scores_BN: Tensor, *, masked_BN: Tensor | None = None) -> Tensor:
    """In-batch contrastive loss: each query's own document against all others.

    `mean_b −log softmax(scores_b)[b]` (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748; with in-batch negatives as
    in Karpukhin et al. 2020, arXiv 2004.04906).

    Args:
        scores_BN: Scores of B queries against N ≥ B documents; document b belongs to query b, those from B on (hard
            negatives) belong to none.
        masked_BN: True where a document is no fair negative of a query, see `same_text`; the diagonal is never masked.

    Returns:
        Scalar, in nats.
    """
    labels_B = torch.arange(len(scores_BN), device=scores_BN.device)
    if masked_BN is not None:
        unfair_BN = masked_BN.clone()
        unfair_BN[labels_B, labels_B] = False
        scores_BN = scores_BN.masked_fill(unfair_BN, -torch.inf)
    return cross_entropy(scores_BN.float(), labels_B)


def same_text(queries_B: Tensor, documents_N: Tensor) -> Tensor:
    """Finds the documents of a batch that a query must not be pushed away from.

    Args:
        queries_B: A number for each query's text; equal texts, equal numbers.
        documents_N: The same for the documents, the first B of which belong to the queries.

    Returns:
        bool `[B, N]`: the document has the text of the query's own one, or belongs to a query of the same text.
    """
    n_queries = len(queries_B)
    same_BN = documents_N[:n_queries, None] == documents_N[None, :]
    same_BN[:, :n_queries] |= queries_B[:, None] == queries_B[None, :]
    return same_BN


def flops(weights_BV: Tensor) -> Tensor:
    """The FLOPS regulariser `Σ_v (mean_b |w_bv|)²`: the expected work of scoring two random rows.

    Paria et al. 2020 (arXiv 2004.05665), as used by SPLADE (Formal et al. 2021, arXiv 2107.05720). The square stands
    outside the mean, so terms that many rows share cost most; the batch must therefore be the whole one.

    Args:
        weights_BV: Vectors of the whole batch.

    Returns:
        Scalar.
    """
    return weights_BV.abs().mean(dim=0).square().sum()


def quadratic(step: int, warmup_steps: int) -> float:
    """The share of a regulariser's weight at an optimiser step: `min(1, (step + 1) / warmup_steps)²`.

    The slow start lets ranking settle before sparsity presses (Paria et al. 2020; quadratic as in Formal et al. 2021).

    Args:
        step: Optimiser step, from 0.
        warmup_steps: Steps until the full weight; 0 means full weight from the start.
    """
    return min(1.0, (step + 1) / warmup_steps) ** 2 if warmup_steps > 0 else 1.0
