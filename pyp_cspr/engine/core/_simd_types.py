"""How numba compiles the calls of ``_simd``: its type of a vector, and the LLVM instructions of each call."""

from __future__ import annotations

import operator
from typing import Any, Callable

from llvmlite import ir
from numba import types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import populate_array

from ._simd import flat, load4, load8, pack4, store4, store8

_FAST = ("nsz", "arcp", "contract", "afn", "reassoc")  # as the numbers of kernels, see _compile


class _Vector(types.Type):
    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def llvm(self) -> Any:
        return ir.VectorType(ir.DoubleType() if self.element is types.float64 else ir.FloatType(), self.lanes)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


_DOUBLES, _FLOATS = _Vector(types.float64, 4), _Vector(types.float32, 8)


def _pointer(context: Any, builder: Any, signature: Any, values: Any, vector: _Vector) -> Any:
    """To the vector at index values[1] of the array values[0]."""
    data = context.make_array(signature.args[0])(context, builder, values[0]).data
    index = context.cast(builder, values[1], signature.args[1], types.intp)  # LLVM takes any integer for a signed one
    return builder.bitcast(builder.gep(data, [index]), vector.llvm.as_pointer())


def _compile_access(load: Callable, store: Callable, vector: _Vector) -> None:
    def fits(array: Any, index: Any) -> bool:
        flat = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == vector.element
        return flat and isinstance(index, types.Integer)

    @type_callable(load)
    def type_of_load(context: Any) -> Callable:
        return lambda array, index: vector if fits(array, index) else None

    @type_callable(store)
    def type_of_store(context: Any) -> Callable:
        return lambda array, index, value: types.void if fits(array, index) and value == vector else None

    align = vector.element.bitwidth // 8  # arrays may begin anywhere

    @lower_builtin(load, types.Array, types.Integer)
    def compile_load(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, values, vector), align=align)

    @lower_builtin(store, types.Array, types.Integer, vector)
    def compile_store(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _pointer(context, builder, signature, values, vector), align=align)
        return context.get_dummy_value()


_compile_access(load4, store4, _DOUBLES)
_compile_access(load8, store8, _FLOATS)


@type_callable(flat)
def _type_of_flat(context: Any) -> Callable:
    return lambda array: array.copy(ndim=1) if isinstance(array, types.Array) and array.layout == "C" else None


@lower_builtin(flat, types.Array)
def _compile_flat(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    source = context.make_array(signature.args[0])(context, builder, values[0])
    line = context.make_array(signature.return_type)(context, builder)
    populate_array(line, source.data, [source.nitems], [source.itemsize], source.itemsize, source.meminfo, source.parent)
    return impl_ret_borrowed(context, builder, signature.return_type, line._getvalue())


@type_callable(pack4)
def _type_of_pack(context: Any) -> Callable:
    return lambda a, b, c, d: _DOUBLES if (a, b, c, d) == 4 * (types.float64,) else None


@lower_builtin(pack4, *(4 * (types.float64,)))
def _compile_pack(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    vector = ir.Constant(_DOUBLES.llvm, ir.Undefined)
    for i, value in enumerate(values):
        vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), i))
    return vector


def _compile_operator(function: Callable, instruction: str, vector: _Vector) -> None:
    @type_callable(function)
    def type_of_result(context: Any) -> Callable:
        return lambda a, b: vector if a == vector and b in (vector, vector.element) else None

    @lower_builtin(function, vector, vector)
    def of_vectors(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return getattr(builder, instruction)(*values, flags=_FAST)

    @lower_builtin(function, vector, vector.element)
    def by_number(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        index = ir.IntType(32)
        first = builder.insert_element(ir.Constant(vector.llvm, ir.Undefined), values[1], ir.Constant(index, 0))
        lanes = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(index, vector.lanes), [0] * vector.lanes))
        return getattr(builder, instruction)(values[0], lanes, flags=_FAST)


for _vector in (_DOUBLES, _FLOATS):
    for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
        _compile_operator(_function, _instruction, _vector)
