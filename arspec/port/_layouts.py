"""Where frameworks keep the weights of a layer: canonical role -> tensor, as steps that only move entries.

Two families of layouts: channels last, as Flax (and Keras, which is canonical), and output
first, as PyTorch and Equinox. Names of tensors are relative to the layer.
"""

from collections.abc import Sequence

from arspec.port._mapping import Entry, Step

Shape = tuple[int, ...]

UPDATE_LAST = ("order", (1, 0, 2))  # thirds update, reset, hidden to reset, update, hidden


def same(**tensors: str) -> tuple[Entry, ...]:
    """Return entries of weights that the framework keeps as they are."""
    return tuple(Entry(role, tensor) for role, tensor in tensors.items())


def reshaped(role: str, tensor: str, *shape: int) -> Entry:
    """Return the entry of a weight that has other axes in the framework."""
    return Entry(role, tensor, (("reshape", shape),))


def output_first(role: str, tensor: str, rank: int) -> Entry:
    """Return (*spatial, a, b) -> (b, a, *spatial): the kernel of a dense layer or a convolution."""
    return Entry(role, tensor, (("transpose", (rank - 1, rank - 2, *range(rank - 2))),))


def output_first_depthwise(tensor: str, shape: Shape) -> Entry:
    """Return (*spatial, channel, multiplier) -> (channel · multiplier, 1, *spatial)."""
    *spatial, channels, multiplier = shape
    rank = len(shape)
    steps: tuple[Step, ...] = (
        ("transpose", (rank - 2, rank - 1, *range(rank - 2))),
        ("reshape", (channels * multiplier, 1, *spatial)),
    )
    return Entry("kernel", tensor, steps)


def last_depthwise(tensor: str, shape: Shape) -> Entry:
    """Return (*spatial, channel, multiplier) -> (*spatial, 1, channel · multiplier)."""
    *spatial, channels, multiplier = shape
    return reshaped("kernel", tensor, *spatial, 1, channels * multiplier)


def flipped(role: str, tensor: str, rank: int, *, first: bool) -> Entry:
    """Return a transposed convolution's kernel (*spatial, output, input) where it is kept as one of a convolution.

    `first`: as (output, input, *spatial); else as (*spatial, input, output).
    """
    spatial = tuple(range(rank - 2))
    axes = (rank - 2, rank - 1, *spatial) if first else (*spatial, rank - 1, rank - 2)
    return Entry(role, tensor, (("flip", spatial), ("transpose", axes)))


def output_first_lstm(kernel: str, recurrent: str) -> tuple[Entry, ...]:
    """Return the two kernels of an LSTM or a simple recurrent layer, (input, gates) -> (gates, input)."""
    return output_first("kernel", kernel, 2), output_first("recurrent_kernel", recurrent, 2)


def output_first_gru(kernel: str, recurrent: str) -> tuple[Entry, ...]:
    """Return the same of a GRU, whose gates stand in the order reset, update, hidden."""
    steps: tuple[Step, ...] = (UPDATE_LAST, ("transpose", (1, 0)))
    return Entry("kernel", kernel, steps), Entry("recurrent_kernel", recurrent, steps)


def gru_row(row: int, tensor: str, units: int) -> Entry:
    """Return one of the two biases of a GRU in the order reset, update, hidden."""
    return Entry("bias", tensor, (("reshape", (3 * units,)), UPDATE_LAST), take=((0, row, row + 1),))


def gru_gate(row: int, gate: int, tensor: str, units: int, at: int | None = None) -> Entry:
    """Return the bias of one gate (0 update, 1 reset, 2 hidden) as a tensor, or as a part of one that starts `at`."""
    take = ((0, row, row + 1), (1, gate * units, (gate + 1) * units))
    put = () if at is None else ((0, at, at + units),)
    return Entry("bias", tensor, (("reshape", (units,)),), take, put)


def gates_apart(role: str, tensors: Sequence[str], units: int, rank: int = 2) -> tuple[Entry, ...]:
    """Return a weight whose gates are tensors of their own, in canonical order."""
    axis = rank - 1
    return tuple(
        Entry(role, tensor, take=((axis, gate * units, (gate + 1) * units),)) for gate, tensor in enumerate(tensors)
    )


def heads_apart(shape: Shape) -> tuple[Step, ...]:
    """Return (features, heads, size) -> (heads · size, features), where the output comes first."""
    features, heads, size = shape
    return (("reshape", (features, heads * size)), ("transpose", (1, 0)))


def heads_joined(shape: Shape) -> tuple[Step, ...]:
    """Return (heads, size, features) -> (features, heads · size)."""
    heads, size, features = shape
    return (("reshape", (heads * size, features)), ("transpose", (1, 0)))
