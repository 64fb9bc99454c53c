"""How a dense index is built: the measure of likeness, and the structure that finds candidates in a segment."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Metric: TypeAlias = Literal["dot", "cosine"]

MAX_DIMENSIONS = 65_536
_ROWS_A_LIST = 39  # the fewest that k-means wants for a centroid
_DIMENSIONS_A_BYTE = 8


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Flat(_Settings):
    """No structure: every search looks at every vector."""

    kind: Literal["flat"] = "flat"


class Hnsw(_Settings):
    """A graph of neighbours (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search", 2018).

    It holds the vectors once more, as float16. Its memory and time to build are the largest, its searches the fastest.

    Attributes:
        m: neighbours of a vector on the upper levels; twice as many on the lowest.
        ef_construction: candidates that are looked at for a vector's neighbours.
    """

    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2, le=256)
    ef_construction: int = Field(default=128, ge=1)


class IvfPq(_Settings):
    """Lists by nearest centroid, of compressed vectors (Jégou et al., "Product quantization", 2011).

    Attributes:
        n_lists: lists in a segment; None takes four times the root of its rows, with 39 rows a list or more.
        m: numbers that a vector is compressed to; None takes one for each 8 dimensions.
        bits: of each of these numbers.
    """

    kind: Literal["ivf_pq"] = "ivf_pq"
    n_lists: int | None = Field(default=None, ge=1)
    m: int | None = Field(default=None, ge=1)
    bits: int = Field(default=8, ge=4, le=8)

    def lists_for(self, n_rows: int) -> int:
        """Lists in a segment of so many rows."""
        wanted = 4 * math.isqrt(n_rows) if self.n_lists is None else self.n_lists
        return max(1, min(wanted, n_rows // _ROWS_A_LIST))

    def parts_for(self, n_dims: int) -> int:
        """Numbers that a vector of so many dimensions is compressed to."""
        return -(-n_dims // _DIMENSIONS_A_BYTE) if self.m is None else min(self.m, n_dims)


Structure: TypeAlias = Annotated[Flat | Hnsw | IvfPq, Field(discriminator="kind")]


class DenseConfig(BaseModel):
    """How a dense index is built.

    Attributes:
        metric: "dot" scores by the inner product of vectors as given, "cosine" of vectors that are brought to length 1.
        structure: what finds candidates for `recall=` and `effort=`.
        flat_below: segments of fewer rows get no structure, and searches that a filter leaves fewer rows use none:
            looking at all of these is about as fast.
        calibrate: whether `calibrate` follows at once, where there is a structure.
        build_threads: threads that make a structure. Only with one is it the same whenever it is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric = "dot"
    structure: Structure = Flat()
    flat_below: int = Field(default=10_000, ge=0)
    calibrate: bool = True
    build_threads: int = Field(default=1, ge=1)
