"""Operations on a block of 32 neighbouring numbers, as single vector instructions.

LLVM turns a plain loop over 32 numbers into scalar code before its vectoriser could see it (a maximum over such a block
takes 5 times as long), so these are written as vectors. They are LLVM's generic vectors: any processor runs them, in as
many registers as it needs. Positions are trusted, as everywhere in compiled kernels.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 32

_BIT, _BYTE, _WORD, _LONG = (ir.IntType(bits) for bits in (1, 8, 32, 64))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, target: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), target.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """The block at a position of a flat array; nothing is assumed about its alignment."""
    vector = ir.VectorType(ir.IntType(kind.dtype.bitwidth), BLOCK)
    return builder.load(_pointer(context, builder, kind, array, at, vector), align=kind.dtype.bitwidth // 8)


def _repeat(builder: Any, number: Any, lane: Any) -> Any:
    """A vector of one number."""
    vector = ir.VectorType(lane, BLOCK)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, _WORD(0))
    places = ir.Constant(ir.VectorType(_WORD, BLOCK), [0] * BLOCK)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), places)


def _declare(builder: Any, name: str, result: Any, *parameters: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)


@intrinsic
def block_max(typing: Any, sums: Any, at: Any) -> Any:
    """`max(sums[at : at + 32])`, for int16 and int32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1])
        bits = signature.return_type.bitwidth
        name = f"llvm.vector.reduce.smax.v{BLOCK}i{bits}"
        return builder.call(_declare(builder, name, ir.IntType(bits), block.type), [block])

    return sums.dtype(sums, types.int64), build


@intrinsic
def block_reaching(typing: Any, sums: Any, at: Any, threshold: Any) -> Any:
    """A uint32 whose bit i says whether `sums[at + i] >= threshold`; the threshold is cut to the sums' type."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1])
        lane = block.type.element
        limit = args[2] if lane.width == _LONG.width else builder.trunc(args[2], lane)
        reached = builder.icmp_signed(">=", block, _repeat(builder, limit, lane))
        return builder.bitcast(reached, _WORD)

    return types.uint32(sums, types.int64, types.int64), build


@intrinsic
def block_add(typing: Any, sums: Any, at: Any, impacts: Any, start: Any, weight: Any) -> Any:
    """`sums[at : at + 32] += weight * impacts[start : start + 32]`, for uint8 impacts."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        old = _load(context, builder, signature.args[0], args[0], args[1])
        bytes_ = _load(context, builder, signature.args[2], args[2], args[3])
        weights = _repeat(builder, builder.trunc(args[4], old.type.element), old.type.element)
        new = builder.add(old, builder.mul(builder.zext(bytes_, old.type), weights))
        target = _pointer(context, builder, signature.args[0], args[0], args[1], old.type)
        builder.store(new, target, align=old.type.element.width // 8)
        return context.get_dummy_value()

    return types.void(sums, types.int64, impacts, types.int64, types.int64), build


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set, int64; 32 if there is none."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = _declare(builder, "llvm.cttz.i32", _WORD, _WORD, _BIT)
        return builder.zext(builder.call(count, [args[0], _BIT(0)]), _LONG)

    return types.int64(types.uint32), build


@intrinsic
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of `array[at]`, which may lie beyond the end: nothing is read."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = _pointer(context, builder, signature.args[0], args[0], args[1], _BYTE)
        fetch = _declare(builder, "llvm.prefetch.p0", ir.VoidType(), _BYTE.as_pointer(), _WORD, _WORD, _WORD)
        builder.call(fetch, [line, _WORD(0), _WORD(3), _WORD(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), build
