"""Vectors of the processor as instructions of LLVM, which kernels are put together from.

numba compiles loops well, but whether it computes with vectors is its compiler's guess. Here each
vector is said: `Code` writes instructions where a function of numba is being compiled.
"""

from typing import Final

from llvmlite import ir
from numba.core import cgutils

FLOAT: Final = ir.FloatType()
INT: Final = ir.IntType(32)
BYTES: Final = 4
"""The size of a number in a vector, all of which are fp32."""


class Vector:
    """A vector in a register, with its arithmetic."""

    def __init__(self, code: "Code", value: ir.Value) -> None:
        self.code = code
        self.value = value

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.code, self.code.builder.fadd(self.value, other.value))

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.code, self.code.builder.fsub(self.value, other.value))

    def __mul__(self, other: "Vector") -> "Vector":
        return Vector(self.code, self.code.builder.fmul(self.value, other.value))

    def plus(self, factor: "float | Vector", other: "Vector") -> "Vector":
        """`self + factor * other`, rounded once."""
        if not isinstance(factor, Vector):
            factor = self.code.constant(factor)
        values = factor.value, other.value, self.value
        return Vector(self.code, self.code.builder.call(self.code.fma, values))

    def leaky(self, slopes: "Vector") -> "Vector":
        """`self` where it is above 0, elsewhere times `slopes`; NaN stays NaN."""
        builder = self.code.builder
        above = builder.fcmp_ordered(">", self.value, self.code.constant(0).value)
        return Vector(self.code, builder.select(above, self.value, (self * slopes).value))


class Code:
    """Writes instructions by LLVM's `builder`, with vectors of `lanes` numbers.

    Addresses and offsets are integers of the machine's width, in bytes.
    """

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.type = ir.VectorType(FLOAT, lanes)
        self.fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.type, [self.type] * 3), f"llvm.fma.v{lanes}f32"
        )

    def constant(self, number: float) -> Vector:
        return Vector(self, ir.Constant(self.type, [float(number)] * self.lanes))

    def offset(self, address: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        """An address plus offsets."""
        for offset in offsets:
            number = ir.Constant(address.type, offset) if isinstance(offset, int) else offset
            address = self.builder.add(address, number)
        return address

    def times(self, offset: ir.Value, count: int) -> ir.Value:
        return self.builder.mul(offset, ir.Constant(offset.type, count))

    def load(self, address: ir.Value) -> Vector:
        loaded = self.builder.load(self.builder.inttoptr(address, self.type.as_pointer()))
        loaded.align = BYTES
        return Vector(self, loaded)

    def store(self, vector: Vector, address: ir.Value) -> None:
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        self.builder.store(vector.value, pointer).align = BYTES

    def load_spread(self, address: ir.Value) -> Vector:
        """A vector of which each number is the one at `address`."""
        number = self.builder.load(self.builder.inttoptr(address, FLOAT.as_pointer()))
        number.align = BYTES
        return self.spread(number)

    def spread(self, number: ir.Value) -> Vector:
        nothing = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(nothing, number, ir.Constant(INT, 0))
        zeros = ir.Constant(ir.VectorType(INT, self.lanes), [0] * self.lanes)
        return Vector(self, self.builder.shuffle_vector(first, nothing, zeros))
