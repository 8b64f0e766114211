"""The text of a fused loop: what was recorded, between loops over merged axes.

Numbers, sizes and strides are parameters, so that one text, compiled once, serves every
coefficient and every shape of an expression.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from arspec._recorded import Code, Expression

# Entries summed into one number before it joins the others: it bounds the roundings of a total.
SEGMENT = 1 << 13


class Layout(NamedTuple):
    """Axes merged where nothing tells them apart.

    Attributes
    ----------
    sizes : of the merged axes; the last one is contiguous in the large array.
    strides : of the large array along them.
    has : for each axis, which small arrays vary along it.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    has: tuple[tuple[bool, ...], ...]


def merged(expression: Expression, code: Code, ends: tuple[int, ...]) -> Layout:
    """Merge the axes up to each of `ends` that follow each other in memory and that small arrays treat alike."""
    shape, whole = expression.shape, expression.source.shape
    groups: list[tuple[int, int, tuple[bool, ...]]] = []
    start = 0
    for end in ends:
        section: list[tuple[int, int, tuple[bool, ...]]] = []
        for axis in range(start, end):
            pattern = tuple(array.shape[axis] != 1 for array in code.arrays)
            stride, size = prod(whole[axis + 1 :]), shape[axis]
            if section and section[-1][2] == pattern and section[-1][1] == stride * size:
                section[-1] = (section[-1][0] * size, stride, pattern)
            elif size != 1:
                section.append((size, stride, pattern))
        groups += section or [(1, 1, (False,) * len(code.arrays))]
        start = end
    if groups[-1][1] != 1:
        groups.append((1, 1, (False,) * len(code.arrays)))
    sizes, strides, has = zip(*groups, strict=True)
    return Layout(sizes, strides, has)


def _parameters(code: Code, layout: Layout, *more: str) -> str:
    axes = range(len(layout.sizes))
    given = ["start", "stop", "source", *(f"s{i}" for i in axes), *(f"t{i}" for i in axes), *more]
    counts = {"f": len(code.parts), "n": len(code.numbers), "b": len(code.arrays)}
    given += [f"{letter}{i}" for letter, count in counts.items() for i in range(count)]
    return f"def loop({', '.join(given)}):"


def _outer_loops(layout: Layout) -> list[str]:
    """Write the loops over all axes but the last."""
    last = len(layout.sizes) - 1
    bounds = ["range(start, stop)", *(f"range(s{axis})" for axis in range(1, last))]
    return [_indented(axis + 1, f"for i{axis} in {bounds[axis]}:") for axis in range(last)]


def _slices(code: Code, layout: Layout, indices: Sequence[str], length: str) -> list[str]:
    """Write the slices of all arrays that the innermost loop reads, from the entry with these indices on.

    A slice begins at 0, which spares the loop a test for negative indices and lets it be vectorized.
    """
    place = _strided(indices)
    lines = [f"r{number} = source[f{number} + {place} :][:{length}]" for number in range(len(code.parts))]
    for number in range(len(code.arrays)):
        has = [pattern[number] for pattern in layout.has]
        index = _position(has, indices)
        lines.append(f"c{number} = b{number}[{index}:][:{length}]" if has[-1] else f"a{number} = b{number}[{index}]")
    return lines


def _strided(indices: Sequence[str]) -> str:
    """Write where an entry lies in an array laid out like the large one."""
    return " + ".join(f"({index}) * t{axis}" for axis, index in enumerate(indices))


def _position(has: Sequence[bool], indices: Sequence[str]) -> str:
    """Write where an entry lies in a contiguous small array that has some of the axes."""
    index = ""
    for axis, name in enumerate(indices):
        if has[axis]:
            index = f"({index}) * s{axis} + {name}" if index else name
    return index or "0"


def _body(code: Code, layout: Layout, axis: int = -1) -> list[str]:
    """Write the expression of entry i of the slices, which run along `axis`."""
    varying = [number for number in range(len(code.arrays)) if layout.has[axis][number]]
    large = [f"x{number} = np.float64(r{number}[i])" for number in range(len(code.parts))]
    return [*large, *(f"a{number} = c{number}[i]" for number in varying), *code.lines]


def fill_text(code: Code, layout: Layout) -> str:
    depth = len(layout.sizes)
    first, length = ("start", "(stop - start)") if depth == 1 else ("0", f"s{depth - 1}")
    indices = [*(f"i{axis}" for axis in range(depth - 1)), first]
    inner = [
        *_slices(code, layout, indices, length),
        f"written = out[first + {_strided(indices)} :][:{length}]",
        "for i in range(written.shape[0]):",
        *("    " + line for line in _body(code, layout)),
        f"    written[i] = {code.result}",
    ]
    return "\n".join([_parameters(code, layout, "out", "first"), *_outer_loops(layout), _block(depth, inner)])


def total_text(code: Code, layout: Layout) -> str:
    depth = len(layout.sizes)
    first, end = ("start", "stop") if depth == 1 else ("0", f"s{depth - 1}")
    indices = [*(f"i{axis}" for axis in range(depth - 1)), "begin"]
    inner = [
        f"for begin in range({first}, {end}, {SEGMENT}):",
        f"    length = min({end} - begin, {SEGMENT})",
        *("    " + line for line in _slices(code, layout, indices, "length")),
        "    for i in range(length):",
        *("        " + line for line in _body(code, layout)),
        f"        part = add(part, {code.result})",
        "    count += length",
        f"    if count >= {SEGMENT}:",
        "        whole, part, count = whole + part, 0.0, 0",
    ]
    start = "    whole, part, count = 0.0, 0.0, 0"
    lines = [_parameters(code, layout), start, *_outer_loops(layout), _block(depth, inner)]
    return "\n".join([*lines, "    return whole + part"])


# The halving tree adds an even-numbered row to the next odd one last: row r meets row r + half first.
# Read in the order of their reversed bits, rows meet like the digits of a binary counter, and a step
# needs one partial result per digit.
_REDUCTION = """
{parameters}
    rows = {rows}
    digits = 0
    while (1 << digits) < rows:
        digits += 1
    partial = np.empty((digits + 1, strip))
    there = np.empty(digits + 1, np.bool_)
    for i0 in range(start, stop):
        for begin in range(0, s2, strip):
            width = min(strip, s2 - begin)
            for count in range(1 << digits):
                r = 0
                for digit in range(digits):
                    r |= ((count >> digit) & 1) << (digits - 1 - digit)
                height = 0
                left = count
                while left:
                    height += 1
                    left &= left - 1
                held = r < rows
                if held:
{slices}
                if count & 1:
                    if held:
                        sums = partial[height - 1]
                        for i in range(length):
{body}
                            sums[i] = {meet}
                    height -= 1
                else:
                    there[height] = held
                    if held:
                        sums = partial[height]
                        for i in range(length):
{body}
                            sums[i] = {result}
                        for i in range(length, strip):
                            sums[i] = {nothing}
                left = count >> 1 if count & 1 else 0
                while left & 1:
                    if there[height]:
                        low, high = partial[height - 1], partial[height]
                        for i in range(strip):
                            {combine}
                    height -= 1
                    left >>= 1
            low = partial[0]
{finish}
"""

_IN_ROWS = """
            width = strip
            while width > 1:
                width //= 2
                high = low[width:]
                for i in range(width):
                    {combine}
            out[i0] = low[0]
"""

_IN_COLUMNS = """
            for i in range(width):
                out[i0 * s2 + begin + i] = low[i]
"""


def reduction_text(code: Code, layout: Layout, how: str, *, in_rows: bool) -> str:
    """Write a reduction of the middle one of three axes, whose rows are strips of a row or of several columns."""
    combine = "low[i] = low[i] + high[i]" if how == "sum" else "low[i] = high[i] if high[i] > low[i] else low[i]"
    meet = f"sums[i] + {code.result}" if how == "sum" else f"{code.result} if {code.result} > sums[i] else sums[i]"
    if in_rows:
        # The rows of the tree are strips of the axis that is summed.
        flat = Layout(layout.sizes[:2], layout.strides[:2], layout.has[:2])
        slices = ["from_ = r * strip", "length = min(strip, s1 - from_)"]
        slices += _slices(code, flat, ("i0", "from_"), "length")
    else:
        slices = ["length = width", *_slices(code, layout, ("i0", "r", "begin"), "length")]
    return _REDUCTION.format(
        parameters=_parameters(code, layout, "out", "strip"),
        rows="(s1 + strip - 1) // strip" if in_rows else "s1",
        slices=_block(5, slices),
        body=_block(7, _body(code, layout, 1 if in_rows else 2)),
        meet=meet,
        result=code.result,
        nothing="0.0" if how == "sum" else "-np.inf",
        combine=combine,
        finish=(_IN_ROWS if in_rows else _IN_COLUMNS).format(combine=combine).strip("\n"),
    )


def _indented(depth: int, line: str) -> str:
    return "    " * depth + line


def _block(depth: int, lines: Iterable[str]) -> str:
    return "\n".join(_indented(depth, line) for line in lines)
