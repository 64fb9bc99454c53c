"""Matrix factorisation whose scores are plain dot products, so that an index of sparse vectors can serve them.

The score of user u and item i is the cosine of two table rows. Rows leave already divided by their lengths, so
serving takes a dot product and nothing else. The cosine with a temperature stands in for weight decay and for an item
bias: on the default log's validation part a dense model did better with it than with dot products and tuned weight
decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, TrainingError

if TYPE_CHECKING:
    from scipy import sparse

# Rows shorter than this count as this long: it bounds the gradient of an empty row, which is divided by the length and
# decides where a table grows.
_SHORTEST = 1e-3
_NOTHING = 1e-6


def random_start(n_users: int, n_items: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """First tables drawn from N(0, 1/H)."""
    scale = 1 / math.sqrt(width)
    users = torch.randn(n_users, width, generator=generator).mul_(scale)
    return users, torch.randn(n_items, width, generator=generator).mul_(scale)


def graph_start(
    matrix: sparse.csr_array, width: int, generator: torch.Generator, *, n_hops: int = 2
) -> tuple[Tensor, Tensor]:
    """First tables from item vectors that travelled along the interactions.

    Each item starts as one random coordinate with a random sign. A hop averages over neighbours in the graph of users
    and items (normalised by the roots of both degrees), and takes out the direction of popularity, which would
    otherwise swallow all others: a few steps of a randomised power iteration, as in FastRP (Chen et al. 2019,
    arXiv:1908.11512). Rows with common neighbours come out alike, and their large weights stand in few places; so if
    each row keeps its largest weights only, neighbours keep the same places, where random masks would hardly overlap.

    Args:
        matrix: interactions `[n_users, n_items]`.
        width: columns H.
        generator: of the random vectors; also of the rows to which nothing travels: of users and items without
            interactions, or of users who all took the same items.
        n_hops: how often vectors travel to the users and back.

    Returns:
        Users `[n_users, H]` and items `[n_items, H]`, rows of unit length.
    """
    from scipy import sparse as sp

    users_U, items_I = (np.sqrt(np.asarray(matrix.sum(axis)).ravel()) for axis in (1, 0))
    step_UI = sp.diags_array(1 / np.maximum(users_U, 1)) @ matrix @ sp.diags_array(1 / np.maximum(items_I, 1))
    step_UI = sp.csr_array(step_UI, dtype=np.float32)
    popular_U, popular_I = (x.astype(np.float32) / np.linalg.norm(x) for x in (users_U, items_I))
    first_users, first_items = random_start(users_U.size, items_I.size, width, generator)
    coordinate = first_items.abs().argmax(1, keepdim=True)
    items_IH = (
        torch.zeros_like(first_items)
        .scatter_(1, coordinate, first_items.gather(1, coordinate).sign())
        .numpy()
    )
    for _ in range(n_hops):
        users_UH = step_UI @ items_IH
        users_UH -= np.outer(popular_U, popular_U @ users_UH)
        items_IH = step_UI.T @ users_UH
        items_IH -= np.outer(popular_I, popular_I @ items_IH)
    users_UH = step_UI @ items_IH
    found = []
    for table, fallback in (
        (torch.from_numpy(users_UH), first_users),
        (torch.from_numpy(items_IH), first_items),
    ):
        reached = table.norm(dim=1, keepdim=True) > _NOTHING
        found.append(normalize(torch.where(reached, table, fallback), dim=1))
    return found[0], found[1]


class FactorModel(nn.Module):
    """A table of users and a table of items.

    Args:
        users: first user table `[n_users, H]`.
        items: first item table `[n_items, H]`.
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users = nn.Parameter(users)
        self.items = nn.Parameter(items)

    def tables(self) -> dict[str, nn.Parameter]:
        """Both tables by name."""
        return {"users": self.users, "items": self.items}

    def forward(
        self, users_B: Tensor, items_C: Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Cosines `[B, C]` in float32 of some users with some items, or with all; multiplied in `dtype`."""
        items_CH = self.items if items_C is None else self.items[items_C]
        users_BH = normalize(self.users[users_B], dim=1, eps=_SHORTEST)
        return (users_BH.to(dtype) @ normalize(items_CH, dim=1, eps=_SHORTEST).to(dtype).T).float()

    def factors(self) -> Factors:
        """What is served: the rows divided by their lengths.

        Raises:
            TrainingError: if a weight is not finite.
        """
        with torch.no_grad():
            users, items = (
                normalize(table, dim=1, eps=_SHORTEST).cpu().numpy() for table in (self.users, self.items)
            )
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise TrainingError("the model holds weights that are not finite; lower the learning rate.")
        return Factors(users, items)


def softmax_loss(
    logits_BC: Tensor,
    row_P: Tensor,
    column_P: Tensor,
    n_positive_B: Tensor,
    log_weight_C: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each user's softmax over items with that user's own items, all equally wanted.

    The multinomial likelihood of Liang et al. 2018 (arXiv:1802.05814), over all items or over a sample of them.

    Args:
        logits_BC: scores of B users for C items.
        row_P: user (row of the logits) of each of the P positives.
        column_P: item (column of the logits) of each.
        n_positive_B: positives of each user, at least 1.
        log_weight_C: what to add to an item's score in the denominator: −log of the chance that it was
            sampled, which makes the sampled sum an unbiased estimate of the whole one. None where all items are there.

    Returns:
        `[B]`, mean negative log-likelihood of each user's items.
    """
    wanted_B = torch.zeros_like(logits_BC[:, 0]).index_add(0, row_P, logits_BC[row_P, column_P])
    everything_BC = logits_BC if log_weight_C is None else logits_BC + log_weight_C
    return torch.logsumexp(everything_BC, 1) - wanted_B / n_positive_B


@dataclass(frozen=True, eq=False)
class Factors:
    """Trained vectors, rows of unit length; a score is the dot product of two rows.

    Attributes:
        users: float32 `[n_users, H]`.
        items: float32 `[n_items, H]`.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Columns H."""
        return int(self.items.shape[1])

    def user_vectors(self, ids: Any = None) -> SparseVectors:
        """Users as sparse vectors; zeros are left out."""
        return SparseVectors.from_dense(self.users, ids=ids, signed=True)

    def item_vectors(self, ids: Any = None) -> SparseVectors:
        """Items as sparse vectors; zeros are left out."""
        return SparseVectors.from_dense(self.items, ids=ids, signed=True)

    def save(self, path: str | Path) -> None:
        """Writes both tables as one safetensors file."""
        from safetensors.numpy import save_file

        save_file({"users": self.users, "items": self.items}, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Factors:
        """Reads what `save` wrote.

        Raises:
            FormatError: if the file is no such file.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tables = load_file(Path(path))
            return cls(tables["users"], tables["items"])
        except (OSError, SafetensorError, KeyError) as error:
            raise FormatError(f"{path} holds no factors ({error}); train again.") from error


def stored_bytes(table: NDArray[np.float32] | SparseVectors, *, equal_rows: bool = True) -> int:
    """Bytes of a table as a model is stored, indices counted.

    A dense weight is 4 bytes. A sparse one is 4 bytes and its column 2 (4 where the table is wider than 65,536);
    rows of unequal length ("global" budgets) need 4 more bytes each to say where they start.
    So a sparse row with 51 non-zeros (306 bytes) is as large as a dense row 76 wide (304 bytes).
    """
    if isinstance(table, SparseVectors):
        return table.nnz * (4 + table.indices.itemsize) + (0 if equal_rows else 4 * (table.n_rows + 1))
    return table.size * 4


def equal_width(nnz: int, width: int) -> int:
    """Width of the dense table that takes as many bytes as a sparse one with `nnz` of `width` a row (or just fewer)."""
    return max(1, nnz * (4 + (2 if width <= 65_536 else 4)) // 4)
