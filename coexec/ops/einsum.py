"""Einsum, its gradient by einsums again, and its reduction to matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened


@dataclass(frozen=True)
class Equation:
    """An einsum equation in explicit form: one letter per axis, no ellipsis.

    ``sizes`` has the size of each letter; an operand's axis may be 1 instead (broadcast).
    """

    terms: tuple[str, ...]
    result: str
    sizes: Mapping[str, int]

    @property
    def text(self) -> str:
        """The equation as ``np.einsum`` reads it."""
        return ",".join(self.terms) + "->" + self.result

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(self.sizes[letter] for letter in self.result)

    @classmethod
    def of(cls, call: OpCall) -> Equation:
        """Parse the attribute ``equation``; ``ValueError`` where it does not fit the operands."""
        kinds = [call.input(i) for i in range(len(call.inputs))]
        left, arrow, right = str(call.attributes["equation"]).replace(" ", "").partition("->")
        written = left.split(",")
        if len(written) != len(kinds):
            raise ValueError(f"Einsum: {len(written)} terms for {len(kinds)} operands")
        spare = [c for c in ascii_letters if c not in left + right]
        widest = _widest_ellipsis(written, kinds)
        dots = "".join(spare[:widest])
        terms = tuple(_expand(t, k, dots) for t, k in zip(written, kinds, strict=True))
        if arrow:
            result = right.replace("...", dots)
        else:
            named = left.replace(",", "").replace(".", "")
            result = dots + "".join(sorted(c for c in set(named) if named.count(c) == 1))
        sizes = _letter_sizes(terms, kinds)
        if any(c not in sizes for c in result) or len(set(result)) != len(result):
            raise ValueError(f"Einsum: the result {result!r} of {left!r} is not valid")
        return cls(terms, result, sizes)


def _widest_ellipsis(terms: Sequence[str], kinds: Sequence[TensorType]) -> int:
    return max(
        (k.rank - len(t) + 3 for t, k in zip(terms, kinds, strict=True) if "..." in t), default=0
    )


def _expand(term: str, kind: TensorType, dots: str) -> str:
    """Replace the ellipsis of a term by the last letters of ``dots`` that its rank allows."""
    if "..." in term:
        hidden = kind.rank - len(term) + 3
        term = term.replace("...", dots[len(dots) - hidden :] if hidden > 0 else "")
    if len(term) != kind.rank or not term.isalpha() | (term == ""):
        raise ValueError(f"Einsum: term {term!r} does not fit {kind}")
    return term


def _letter_sizes(terms: Sequence[str], kinds: Sequence[TensorType]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, kind in zip(terms, kinds, strict=True):
        for letter, size in zip(term, kind.shape, strict=True):
            known = sizes.get(letter, 1)
            if 1 not in (known, size) and known != size:
                raise ValueError(f"Einsum: index {letter} is {known} and {size} long")
            sizes[letter] = size if known == 1 else known
    return sizes


def infer_einsum(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(Equation.of(call).shape),)


@widened
def einsum(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    result = np.einsum(Equation.of(call).text, *operands, optimize=True)
    return (np.asarray(result, operands[0].dtype),)


def einsum_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """Operand i: an einsum of dY and the other operands onto the letters of operand i."""
    e = Equation.of(s.call)
    return [_operand_gradient(s, e, i) if s.wanted[i] else None for i in range(len(e.terms))]


def _operand_gradient(s: GradientScope, e: Equation, position: int) -> ir.Value:
    """Letters that only this operand has are filled by ones, repeated ones by the identity."""
    dtype = s.call.input(position).dtype
    terms, values = [e.result], [s.grad()]
    for i, term in enumerate(e.terms):
        if i != position:
            terms.append(term)
            values.append(s.value(i))
    target = ""
    spare = [c for c in ascii_letters if c not in e.sizes]
    for letter in e.terms[position]:
        size = e.sizes[letter]
        if letter in target:
            fresh = spare.pop()
            terms.append(letter + fresh)
            values.append(s.constant(np.eye(size), dtype))
            letter = fresh  # noqa: PLW2901 - the repeated index becomes one of its own
        elif not any(letter in term for term in terms):
            terms.append(letter)
            values.append(s.constant(np.ones(size), dtype))
        target += letter
    return s.op("Einsum", values, {"equation": ",".join(terms) + "->" + target})


@dataclass(frozen=True)
class _Term:
    """A value of a body with one distinct letter per axis."""

    value: ir.Value
    letters: str


class _Reducer:
    """Writes an equation as products of two terms at a time, from left to right."""

    def __init__(self, builder: FunctionBuilder, equation: Equation) -> None:
        self.b = builder
        self.sizes = equation.sizes
        self.dtype = builder.call.input(0).dtype

    def term(self, value: ir.Value, letters: str, shape: tuple[int, ...]) -> _Term:
        """An operand without broadcast axes and repeated letters."""
        kept = [i for i, c in enumerate(letters) if shape[i] == self.sizes[c]]
        if len(kept) < len(letters):
            value = self.reshape(value, tuple(shape[i] for i in kept))
            letters = "".join(letters[i] for i in kept)
        while len(set(letters)) < len(letters):
            value, letters = self._diagonal(value, letters)
        return _Term(value, letters)

    def _diagonal(self, value: ir.Value, letters: str) -> tuple[ir.Value, str]:
        """Mask all but the diagonal of a repeated letter, and sum over its second axis."""
        second = next(i for i, c in enumerate(letters) if c in letters[:i])
        first = letters.index(letters[second])
        size = self.sizes[letters[second]]
        shape = [size if i in (first, second) else 1 for i in range(len(letters))]
        masked = self.b.op("Mul", [value, self.b.constant(np.eye(size).reshape(shape), self.dtype)])
        total = self.b.op("ReduceSum", [masked, self.b.shape((second,))], {"keepdims": 0})
        return total, letters[:second] + letters[second + 1 :]

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self.b.op("Reshape", [value, self.b.shape(shape)])

    def reduce(self, term: _Term, keep: str) -> _Term:
        """Sum over the letters that nobody else needs."""
        axes = [i for i, c in enumerate(term.letters) if c not in keep]
        if not axes:
            return term
        total = self.b.op("ReduceSum", [term.value, self.b.shape(axes)], {"keepdims": 0})
        return _Term(total, "".join(c for c in term.letters if c in keep))

    def arrange(self, term: _Term, letters: str) -> ir.Value:
        """Transpose to the order of ``letters``."""
        if term.letters == letters:
            return term.value
        perm = tuple(term.letters.index(c) for c in letters)
        return self.b.op("Transpose", [term.value], {"perm": perm})

    def _size(self, letters: str) -> int:
        return prod(self.sizes[c] for c in letters)

    def multiply(self, x: _Term, y: _Term, keep: str) -> _Term:
        """Contract the shared letters that are not kept: one (batched) MatMul."""
        x, y = self.reduce(x, y.letters + keep), self.reduce(y, x.letters + keep)
        shared = [c for c in x.letters if c in y.letters]
        batch = "".join(c for c in shared if c in keep)
        inner = "".join(c for c in shared if c not in keep)
        rows = "".join(c for c in x.letters if c not in shared)
        columns = "".join(c for c in y.letters if c not in shared)
        letters = batch + rows + columns
        sizes = (self._size(batch), self._size(rows), self._size(inner), self._size(columns))
        left = self.reshape(self.arrange(x, batch + rows + inner), sizes[:3])
        right = self.reshape(self.arrange(y, batch + inner + columns), (sizes[0], *sizes[2:]))
        name = "MatMul" if inner else "Mul"
        product = self.b.op(name, [left, right])
        return _Term(self.reshape(product, [self.sizes[c] for c in letters]), letters)


def einsum_body(call: OpCall) -> ir.Function | None:
    """Transpose, Reshape, MatMul (Mul where nothing is summed) and ReduceSum."""
    e = Equation.of(call)
    b = FunctionBuilder(call)
    reducer = _Reducer(b, e)
    terms = [
        reducer.term(value, letters, call.input(i).shape)
        for i, (value, letters) in enumerate(zip(b.inputs, e.terms, strict=True))
    ]
    current = terms[0]
    for i, following in enumerate(terms[1:], start=2):
        keep = e.result + "".join(t.letters for t in terms[i:])
        current = reducer.multiply(current, following, keep)
    current = reducer.reduce(current, e.result)
    return b.function([b.op("Identity", [_broadcast(reducer, current, e)])])


def _broadcast(reducer: _Reducer, term: _Term, e: Equation) -> ir.Value:
    """The result in its order; letters that only broadcast axes had are of size 1."""
    present = "".join(c for c in e.result if c in term.letters)
    value = reducer.arrange(term, present)
    return value if present == e.result else reducer.reshape(value, e.shape)


def einsum_work(call: OpCall) -> Work:
    """A multiply-add per element of the index space, times the number of products."""
    e = Equation.of(call)
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(2 * prod(e.sizes.values()) * max(len(e.terms) - 1, 1), moved)


def _case(equation: str, *shapes: tuple[int, ...]) -> Example:
    return Example(tuple(Sample(shape) for shape in shapes), {"equation": equation})


OPS = (
    OpDef(
        "Einsum",
        infer_einsum,
        einsum,
        gradient=einsum_gradient,
        work=einsum_work,
        body=einsum_body,
        examples=(
            _case("ij,jk->ik", (3, 4), (4, 5)),
            _case("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
            _case("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)),
            _case("ij->ji", (3, 4)),
            _case("ij->i", (3, 4)),
            _case("ij->", (3, 4)),
            _case("...ii->...i", (2, 3, 3)),
            _case("ii", (4, 4)),
            _case("i,i", (5,), (5,)),
            _case("i,j->ij", (3,), (4,)),
            _case("bij,jk", (2, 3, 4), (4, 5)),
            _case("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
            _case("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)),
            _case("ab,bc,cd->ad", (2, 3), (3, 4), (4, 2)),
            _case("abc,ac->b", (2, 3, 4), (2, 4)),
            _case("abc,cd->d", (2, 3, 4), (4, 3)),
            _case("i->i", (3,)),
        ),
    ),
)
