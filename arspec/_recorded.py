"""Expression: operations on one large array, recorded and not computed, and how they are written as code."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Operand = Any


class Unfusable(Exception):
    """What was asked has no form in one loop; the definition serves. Users never see it."""


class Expression:
    """The result of operations on a large array, entry by entry, that nobody has computed yet.

    Attributes
    ----------
    operation : "x" for a part of the array itself, else one that `_CODE` writes.
    operands : expressions, numbers and small arrays that broadcast to `shape`; of "x" the
        first index of the part along every axis.
    shape : of the result.
    source : the large array, contiguous; or one like it while a loop is only prepared.
    is_condition : whether it is true or false.
    """

    __slots__ = ("is_condition", "operands", "operation", "shape", "source")
    __array_ufunc__ = None  # NumPy's arrays and scalars leave their operators to ours
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(
        self, operation: str, operands: tuple[Operand, ...], shape: tuple[int, ...], source: np.ndarray
    ) -> None:
        self.operation, self.operands, self.shape, self.source = operation, operands, shape, source
        self.is_condition = operation in _CONDITIONS

    @classmethod
    def of(cls, x: np.ndarray) -> "Expression":
        """Return the expression that is x itself."""
        return cls("x", (0,) * x.ndim, x.shape, x)

    def flat(self, shape: tuple[int, ...]) -> "Expression":
        """Return x in another shape; what was computed from it has none."""
        if self.operation != "x" or self.shape != self.source.shape:
            raise Unfusable
        return Expression.of(self.source.reshape(shape))

    def __getitem__(self, index: Any) -> "Expression":
        index = index if isinstance(index, tuple) else (index,)
        if len(index) > len(self.shape) or not all(isinstance(one, slice) for one in index):
            raise Unfusable
        whole = [slice(None)] * (len(self.shape) - len(index))
        bounds = [one.indices(size) for one, size in zip([*index, *whole], self.shape, strict=True)]
        if any(step != 1 for _, _, step in bounds):
            raise Unfusable
        return part(self, [(start, max(stop, start)) for start, stop, _ in bounds])

    def __abs__(self) -> "Expression":
        return apply("abs", self)

    def __neg__(self) -> "Expression":
        return apply("neg", self)

    def __invert__(self) -> "Expression":
        return apply("invert", self)

    def __bool__(self) -> bool:
        raise Unfusable  # nobody knows yet

    def __iter__(self) -> Any:
        raise Unfusable


class Pieces(Expression):
    """Expressions that follow each other along one axis.

    Attributes
    ----------
    axis : along which they do.
    """

    __slots__ = ("axis",)

    def __init__(self, pieces: Sequence[Expression], axis: int) -> None:
        first = pieces[0]
        length = sum(piece.shape[axis] for piece in pieces)
        shape = (*first.shape[:axis], length, *first.shape[axis + 1 :])
        super().__init__("pieces", tuple(piece for piece in pieces if piece.shape[axis]), shape, first.source)
        self.axis = axis

    def starts(self) -> list[int]:
        """Return where each piece begins, and where the last one ends."""
        found = [0]
        for piece in self.operands:
            found.append(found[-1] + piece.shape[self.axis])
        return found


def apply(operation: str, *operands: Operand) -> Expression:
    """Record an operation of which one operand is an expression."""
    recorded = [one for one in operands if isinstance(one, Expression)]
    like = recorded[0]
    for one in operands:
        if isinstance(one, Expression):
            if one.source is not like.source or one.shape != like.shape:
                raise Unfusable
        elif isinstance(one, np.ndarray) and one.ndim not in (0, len(like.shape)):
            raise Unfusable
    divided = [one for one in recorded if isinstance(one, Pieces)]
    if not divided:
        return Expression(operation, operands, like.shape, like.source)
    axis = divided[0].axis
    if any(one.axis != axis for one in divided):
        raise Unfusable
    cuts = sorted({cut for one in divided for cut in one.starts()})
    spans = itertools.pairwise(cuts)
    return Pieces([apply(operation, *(_between(one, axis, *span) for one in operands)) for span in spans], axis)


def where(condition: Operand, x: Operand, y: Operand) -> Expression:
    """Record a choice."""
    return apply("where", condition, x, y)


def part(operand: Operand, bounds: Sequence[tuple[int, int]]) -> Operand:
    """Return what lies between bounds along every axis of an expression, or of an array that broadcasts to it."""
    if isinstance(operand, np.ndarray) and operand.ndim:
        cuts = zip(bounds, operand.shape, strict=True)
        return operand[tuple(slice(*bound) if size > 1 else slice(None) for bound, size in cuts)]
    if not isinstance(operand, Expression):
        return operand
    if tuple(bounds) == tuple((0, size) for size in operand.shape):
        return operand
    if isinstance(operand, Pieces):
        raise Unfusable
    found: dict[int, Expression] = {}
    shape = tuple(stop - start for start, stop in bounds)
    for one in in_order(operand):
        if one.operation == "x":
            operands: tuple[Any, ...] = tuple(a + start for a, (start, _) in zip(one.operands, bounds, strict=True))
        else:
            operands = tuple(found[id(o)] if isinstance(o, Expression) else part(o, bounds) for o in one.operands)
        found[id(one)] = Expression(one.operation, operands, shape, one.source)
    return found[id(operand)]


def _between(operand: Operand, axis: int, start: int, stop: int) -> Operand:
    """Return what lies between two indices along one axis; of pieces, the one that holds them."""
    if isinstance(operand, Pieces):
        starts = operand.starts()
        for begin, end, piece in zip(starts[:-1], starts[1:], operand.operands, strict=True):
            if begin <= start and stop <= end:
                return _between(piece, axis, start - begin, stop - begin)
    if not isinstance(operand, Expression | np.ndarray):
        return operand
    bounds = [(0, size) for size in operand.shape]
    return part(operand, [*bounds[:axis], (start, stop), *bounds[axis + 1 :]])


_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|",
}  # fmt: skip
_CONDITIONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "invert")
_CODE = {name: f"({{0}} {sign} {{1}})" for name, sign in _BINARY.items()} | {
    "neg": "(-{0})",
    "invert": "(not {0})",
    "abs": "abs({0})",
    "where": "({1} if {0} else {2})",
    **{name: f"math.{name}({{0}})" for name in ("sqrt", "exp", "log", "log1p", "cos")},
    "pow": "math.pow({0}, {1})",
}


def _operator(name: str, *, swapped: bool) -> Callable[[Expression, Operand], Expression]:
    if swapped:
        return lambda self, other: apply(name, other, self)
    return lambda self, other: apply(name, self, other)


for _name in _BINARY:
    setattr(Expression, f"__{_name}__", _operator(_name, swapped=False))
    setattr(Expression, f"__r{_name}__", _operator(_name, swapped=True))


@dataclass(slots=True)
class Code:
    """An expression as the body of a loop.

    Attributes
    ----------
    lines : assignments, one per operation.
    result : the name that holds the result.
    parts : the first index of each part of the large array that is read, as x0, x1, ...
    numbers : the values of the parameters n0, n1, ...
    arrays : the small arrays behind a0, a1, ...
    """

    lines: list[str] = field(default_factory=list)
    result: str = ""
    parts: list[tuple[int, ...]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)


def written(expression: Expression) -> Code:
    """Write an expression as code; the entries of the large array and of small ones are float64 variables."""
    if isinstance(expression, Pieces):
        raise Unfusable
    code = Code()
    names: dict[int, str] = {}
    for one in in_order(expression):
        if one.operation == "x":
            if one.operands not in code.parts:
                code.parts.append(one.operands)
            names[id(one)] = f"x{code.parts.index(one.operands)}"
            continue
        operands = [names[id(o)] if isinstance(o, Expression) else _named(o, code) for o in one.operands]
        names[id(one)] = f"v{len(code.lines)}"
        code.lines.append(f"{names[id(one)]} = {_CODE[one.operation].format(*operands)}")
    code.result = names[id(expression)]
    return code


def in_order(expression: Expression) -> Iterable[Expression]:
    """Return every expression that one depends on, operands first."""
    found: dict[int, Expression] = {}
    waiting: list[tuple[Expression, bool]] = [(expression, False)]
    while waiting:
        one, ready = waiting.pop()
        if ready:
            found[id(one)] = one
        elif id(one) not in found:
            waiting.append((one, True))
            waiting += [(operand, False) for operand in one.operands if isinstance(operand, Expression)]
    return found.values()


def _named(operand: Operand, code: Code) -> str:
    """Name a number or a small array, which become parameters of the loop: one loop serves every coefficient."""
    if isinstance(operand, np.ndarray) and operand.size > 1:
        known = [index for index, array in enumerate(code.arrays) if array is operand]
        if not known:
            code.arrays.append(operand)
        name = f"a{known[0] if known else len(code.arrays) - 1}"
        return f"({name} != 0.0)" if operand.dtype == bool else name
    number = float(np.asarray(operand).reshape(()))
    if not np.isfinite(number):  # NaN is no number to be found again by
        return "np.nan" if number != number else f"({np.sign(number)} * np.inf)"
    if number in (0.0, 1.0, -1.0):  # what a formula itself says, the compiler may use
        return repr(number)
    code.numbers.append(number)
    return f"n{len(code.numbers) - 1}"
