"""What a comparison of a filter means for an Arrow column: which values fit it, and which rows hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.index.filters import Compare, Operator, shown
from gossamer.kernels.errors import InputError

_FITTING: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (int, float),
    "bool": (bool,),
}
_ARROW: dict[Operator, Callable[..., Any]] = {
    "==": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def fitting(clause: Compare, kind: pa.DataType) -> pa.Array:
    """The values that a column of this type is compared with, as Arrow has them.

    Raises:
        InputError: a value is of another type, or the type has no order and one is asked for.
    """
    said = f"the filter {shown(clause.column)} {clause.operator}"
    if pa.types.is_boolean(kind) and clause.operator not in ("==", "in"):
        raise InputError(f"{said} … has no sense, as the column is bool; use '==' or 'in'.")
    for value in clause.values:
        if type(value) not in _FITTING[str(kind)]:
            raise InputError(f"{said} {shown(value)} does not fit the column, which is {kind}.")
    try:
        return pa.array(clause.values, type=kind)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(
            f"{said} {shown(clause.values)} does not fit the column, which is {kind}."
        ) from error


def holds(column: pa.Array | pa.ChunkedArray, operator: Operator, wanted: pa.Array) -> NDArray[np.bool_]:
    """For each row whether the column satisfies the comparison; a missing value, null or NaN, satisfies none."""
    if operator != "in":
        found = _ARROW[operator](column, wanted[0])
    elif pa.types.is_floating(wanted.type):  # `is_in` tells -0.0 from 0.0, and a sum is never the former
        found = pc.is_in(pc.add(column, 0.0), value_set=pc.add(wanted, 0.0))
    else:
        found = pc.is_in(column, value_set=wanted)
    holds: NDArray[np.bool_] = found.fill_null(False).to_numpy(zero_copy_only=False)
    return holds
