"""Source code of the layers that Keras does not have; a file gets those it needs.

Nothing here runs in arspec: it is text for people's files, written to be read there.
"""

_PADDED_POOLING = '''class PaddedMaxPooling{rank}D(layers.MaxPooling{rank}D):
    """Maximum over windows that reach over the edge by `pads`, (before, after) of each axis."""

    def __init__(
        self,
        pool_size: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[tuple[int, int], ...],
        **options: Any,
    ) -> None:
        super().__init__(pool_size, strides, **options)
        self.pads = tuple((before, after) for before, after in pads)

    def call(self, inputs: Any) -> Any:
        around = ((0, 0), *self.pads, (0, 0))
        return super().call(keras.ops.pad(inputs, around, constant_values=-math.inf))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sizes = zip(input_shape[1:-1], self.pads)
        padded = [None if n is None else n + sum(pair) for n, pair in sizes]
        return super().compute_output_shape((input_shape[0], *padded, input_shape[-1]))

    def get_config(self) -> dict[str, Any]:
        return {{**super().get_config(), "pads": self.pads}}'''

HELPERS = {
    "UnbiasedBatchNormalization": '''class UnbiasedBatchNormalization(layers.BatchNormalization):
    """Batch normalization whose moving variance is that of n - 1, as PyTorch has it.

    Keras' own divides by n. The batch itself is normalized with the variance of n in both.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        kept = self.moving_variance * self.momentum
        outputs = super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            n = math.prod(inputs.shape[1:-1]) * keras.ops.shape(inputs)[0]
            factor = keras.ops.cast(n, kept.dtype) / keras.ops.cast(n - 1, kept.dtype)
            self.moving_variance.assign(kept + (self.moving_variance - kept) * factor)
        return outputs''',
    "GeluTanh": '''class GeluTanh(layers.Layer):
    """GELU by its approximation with tanh."""

    def call(self, inputs: Any) -> Any:
        inner = math.sqrt(2 / math.pi) * (inputs + 0.044715 * inputs * inputs * inputs)
        return 0.5 * inputs * (1.0 + keras.ops.tanh(inner))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape''',
    "Scale": '''class Scale(layers.Layer):
    """Each channel times a number."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale''',
    **{f"PaddedMaxPooling{rank}D": _PADDED_POOLING.format(rank=rank) for rank in (1, 2, 3)},
}
