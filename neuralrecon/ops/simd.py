"""Vectors of 16 numbers in Numba: LLVM's own, so they run on every CPU, split into whatever registers it has.

Numba's loops are vectorised by LLVM only where they are simple; looking up a hash table is not. A `Vector` is a value
in a register: made by `splat` or `load`, combined by operators, written by `store`. Arrays may have any alignment.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, overload, register_model

LANES = 16
_F32, _I1, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLAGS = ("contract", "reassoc", "nsz", "arcp")  # a product and a sum may become one; their order may change


def intrinsic(function: Callable) -> Any:
    """Numba's decorator; what it makes is called within kernels, without the typing context."""
    return numba_intrinsic(function)


class Vector(types.Type):
    """Sixteen numbers of one kind."""

    def __init__(self, name: str, element: ir.Type) -> None:
        self.llvm = ir.VectorType(element, LANES)
        super().__init__(name=name)


floats, ints, bools = Vector("f32x16", _F32), Vector("i32x16", _I32), Vector("i1x16", _I1)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _binary(operands: Vector, result: Vector, emit: Callable) -> Any:
    @intrinsic
    def operation(typingctx, a, b):
        return result(operands, operands), lambda context, builder, signature, args: emit(builder, *args)

    return operation


_ON_FLOATS = {
    operator.add: _binary(floats, floats, lambda b, x, y: b.fadd(x, y, flags=_FLAGS)),
    operator.sub: _binary(floats, floats, lambda b, x, y: b.fsub(x, y, flags=_FLAGS)),
    operator.mul: _binary(floats, floats, lambda b, x, y: b.fmul(x, y, flags=_FLAGS)),
    operator.truediv: _binary(floats, floats, lambda b, x, y: b.fdiv(x, y, flags=_FLAGS)),
    operator.ne: _binary(floats, bools, lambda b, x, y: b.fcmp_unordered("!=", x, y)),
    operator.gt: _binary(floats, bools, lambda b, x, y: b.fcmp_ordered(">", x, y)),
}
_ON_INTS = {
    operator.add: _binary(ints, ints, lambda b, x, y: b.add(x, y)),
    operator.mul: _binary(ints, ints, lambda b, x, y: b.mul(x, y)),
    operator.xor: _binary(ints, ints, lambda b, x, y: b.xor(x, y)),
    operator.and_: _binary(ints, ints, lambda b, x, y: b.and_(x, y)),
    operator.or_: _binary(ints, ints, lambda b, x, y: b.or_(x, y)),
    operator.lshift: _binary(ints, ints, lambda b, x, y: b.shl(x, y)),
    operator.rshift: _binary(ints, ints, lambda b, x, y: b.ashr(x, y)),
    operator.lt: _binary(ints, bools, lambda b, x, y: b.icmp_signed("<", x, y)),
}


def _overload_operator(symbol: Callable) -> None:
    known = {vector: table[symbol] for vector, table in ((floats, _ON_FLOATS), (ints, _ON_INTS)) if symbol in table}

    @overload(symbol)
    def operation(a, b):
        if a != b or a not in known:
            return None
        emit = known[a]
        return lambda a, b: emit(a, b)


for _symbol in {*_ON_FLOATS, *_ON_INTS}:
    _overload_operator(_symbol)


@intrinsic
def select(typingctx, mask, a, b):
    """Lane by lane `a` where `mask`, else `b`."""
    return a(bools, a, a), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def splat(typingctx, x):
    """One number in all lanes: floats from a float, ints from an integer."""
    result = floats if isinstance(x, types.Float) else ints
    scalar = types.float32 if result is floats else types.int32

    def codegen(context, builder, signature, args):
        nothing = ir.Constant(result.llvm, ir.Undefined)
        return builder.shuffle_vector(builder.insert_element(nothing, args[0], _I32(0)), nothing, _pattern([0] * LANES))

    return result(scalar), codegen


@intrinsic
def any_of(typingctx, mask):
    """Whether at least one lane is set."""

    def codegen(context, builder, signature, args):
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], _I16), _I16(0))

    return types.boolean(bools), codegen


@intrinsic
def sqrt(typingctx, x):
    """Lane by lane."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(floats.llvm, [floats.llvm])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), args)

    return floats(floats), codegen


@intrinsic
def to_ints(typingctx, x):
    """Towards zero."""
    return ints(floats), lambda context, builder, signature, args: builder.fptosi(args[0], ints.llvm)


@intrinsic
def to_floats(typingctx, x):
    """The same numbers as floats."""
    return floats(ints), lambda context, builder, signature, args: builder.sitofp(args[0], floats.llvm)


@intrinsic
def load(typingctx, array, row, column):
    """array[row, column : column + 16] of a C-ordered float32 array."""

    def codegen(context, builder, signature, args):
        return builder.load(_address(context, builder, signature, args, floats.llvm), align=4)

    return floats(array, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, array, row, column, vector):
    """array[row, column : column + 16] = vector."""

    def codegen(context, builder, signature, args):
        builder.store(args[3], _address(context, builder, signature, args, floats.llvm), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, floats), codegen


@intrinsic
def load_mask(typingctx, array, row, column):
    """The bits of array[row, column] of a C-ordered uint16 array."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.load(_address(context, builder, signature, args, _I16)), bools.llvm)

    return bools(array, types.intp, types.intp), codegen


@intrinsic
def store_mask(typingctx, array, row, column, mask):
    """array[row, column] = the sixteen bits of `mask`."""

    def codegen(context, builder, signature, args):
        builder.store(builder.bitcast(args[3], _I16), _address(context, builder, signature, args, _I16))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, bools), codegen


def _address(context, builder, signature, args, element: ir.Type):
    array = context.make_array(signature.args[0])(context, builder, args[0])
    pointer = cgutils.get_item_pointer(context, builder, signature.args[0], array, args[1:3], wraparound=False)
    return builder.bitcast(pointer, element.as_pointer())


def _pattern(lanes: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes))


def _shuffle(lanes: Sequence[int]) -> Any:
    @intrinsic
    def operation(typingctx, a, b):
        return floats(floats, floats), lambda context, builder, signature, args: builder.shuffle_vector(
            args[0], args[1], _pattern(lanes)
        )

    return operation


_HALF = LANES // 2
# a pair is two numbers side by side; two vectors hold the pairs of sixteen points
zip_low = _shuffle([lane for i in range(_HALF) for lane in (i, LANES + i)])  # a0 b0 a1 b1 ... of the first eight
zip_high = _shuffle([lane for i in range(_HALF, LANES) for lane in (i, LANES + i)])
firsts = _shuffle(range(0, 2 * LANES, 2))  # undoes it: the first numbers of all pairs
seconds = _shuffle(range(1, 2 * LANES, 2))


def _gather(half: int) -> Any:
    @intrinsic
    def operation(typingctx, table, start, index):
        def codegen(context, builder, signature, args):
            base, pairs = _entries(context, builder, signature, args, _I64), ir.VectorType(_I64, _HALF)
            gathered = ir.Constant(pairs, ir.Undefined)
            for k in range(_HALF):
                address = builder.gep(base, [_lane(builder, args[2], half + k)])
                gathered = builder.insert_element(gathered, builder.load(address, align=4), _I32(k))
            return builder.bitcast(gathered, floats.llvm)

        return floats(table, types.intp, ints), codegen

    return operation


def _scatter(half: int) -> Any:
    @intrinsic
    def operation(typingctx, table, start, index, pairs):
        def codegen(context, builder, signature, args):
            base = _entries(context, builder, signature, args, ir.VectorType(_F32, 2))
            for k in range(_HALF):
                address = builder.gep(base, [_lane(builder, args[2], half + k)])
                pair = builder.shuffle_vector(args[3], args[3], _pattern([2 * k, 2 * k + 1]))
                builder.store(builder.fadd(builder.load(address, align=4), pair), address, align=4)
            return context.get_dummy_value()

        return types.void(table, types.intp, ints, floats), codegen

    return operation


def _entries(context, builder, signature, args, element: ir.Type):
    array = context.make_array(signature.args[0])(context, builder, args[0])
    place = [args[1], context.get_constant(types.intp, 0)]
    pointer = cgutils.get_item_pointer(context, builder, signature.args[0], array, place, wraparound=False)
    return builder.bitcast(pointer, element.as_pointer())


def _lane(builder, index, lane: int):
    return builder.zext(builder.extract_element(index, _I32(lane)), _I64)


# pairs table[start + index] of a float32 table [entries, 2], of lanes 0 to 7 or 8 to 15
gather_low, gather_high = _gather(0), _gather(_HALF)
# table[start + index] += pair, one lane after the other
add_low, add_high = _scatter(0), _scatter(_HALF)
