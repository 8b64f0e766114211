"""A model of keras.applications and a Transformer, regularized in three lines each."""

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import attach, sites
from keras_models import nothing, number

LAYERS = keras.layers
JIT = keras.backend.backend() == "jax"  # where nothing is quicker; elsewhere compiling takes longer than running
IMAGES = np.random.default_rng(5).standard_normal((2, 32, 32, 3)).astype(np.float32)
TOKENS = np.array([[3, 1, 4, 1, 5, 0, 0], [9, 2, 6, 0, 0, 0, 0], [5, 3, 5, 8, 9, 7, 10]], np.int32)


def test_mobile_net_with_channel_wise_group_lasso() -> None:
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=4)
    lasso = ar.GroupLasso(1e-3, norm_over=("height", "width", "input"))
    spec = ar.Spec(
        [
            ar.Rule(lasso, layer="conv_pw_1*", placement="kernel"),
            ar.Rule(ar.L2(1e-4), layer="**", placement="kernel"),
            ar.Rule(ar.L1(1e-2), layer="conv_dw_?_bn", placement="scale"),
            ar.Rule(ar.L1(1e-4), layer="conv_pw_13_relu", placement="output"),
        ]
    )
    attach(model, spec)
    model.compile(keras.optimizers.SGD(1.0), nothing, jit_compile=JIT)
    kernels = {layer.name: number(layer.kernel) for layer in model.layers if getattr(layer, "kernel", None) is not None}
    scales = [number(model.get_layer(f"conv_dw_{index}_bn").gamma) for index in range(1, 10)]
    found = model.evaluate(IMAGES, np.zeros((2, 4)), verbose=0)
    weights = sum(ar.value(ar.L2(1e-4), kernel) for kernel in kernels.values())
    weights += sum(ar.value(ar.L1(1e-2), scale) for scale in scales)
    pointwise = [kernel for name, kernel in kernels.items() if name.startswith("conv_pw_1")]
    weights += sum(ar.value(lasso, kernel, axes="height width input output") for kernel in pointwise)
    after = keras.Model(model.inputs, model.get_layer("conv_pw_13_relu").output)
    after.compile(jit_compile=JIT)
    activity = ar.value(ar.L1(1e-4), after.predict(IMAGES, verbose=0), mean_over=("batch",))
    assert (len(kernels), len(pointwise)) == (28, 5)
    np.testing.assert_allclose(found, float(weights) + float(activity), rtol=1e-5)


def transformer(units: int = 6) -> keras.Model:
    tokens = keras.Input((7,), dtype="int32")
    x = LAYERS.Embedding(11, units, mask_zero=True, name="table")(tokens)
    attended = LAYERS.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = LAYERS.LayerNormalization(name="norm")(LAYERS.Add(name="sum")([x, attended]))
    wide = LAYERS.Dense(13, activation="gelu", name="wide")(x)
    x = LAYERS.Add(name="sum_2")([x, LAYERS.Dense(units, name="narrow")(wide)])
    return keras.Model(tokens, LAYERS.Dense(11, name="head")(x))


def test_b3_attention_takes_the_mask_off_its_input() -> None:
    """Keras' own tensors have no mask behind it; what was masked when it was made stays so."""
    rules = [
        ar.Rule(ar.L1L2(0.5, 0.25), layer=layer, placement=placement, mean_over=("batch", "time"))
        for layer, placement in (("table", "output"), ("attention", "input"), ("attention", "output"))
    ]
    rules += [ar.Rule(ar.L2(0.1), layer="**", placement=p) for p in ("kernel", "query_kernel", "embeddings", "scale")]
    model = attach(transformer(), ar.Spec(rules))
    model(TOKENS)
    found = sites(model)
    assert len(found) == 3 + 3 + 3
    inner = [model.get_layer("table").output, model.get_layer("attention").output]
    table, attended = (keras.Model(model.inputs, tensor).predict(TOKENS, verbose=0) for tensor in inner)
    for site, x in zip(found, (table, table, attended), strict=False):
        expected = ar.value(ar.L1L2(0.5, 0.25), x, mean_over=("batch", "time"), mask=TOKENS > 0)
        np.testing.assert_allclose(site.value, expected, rtol=1e-5, err_msg=site.key)


def test_b3_a_lost_mask_is_said_once() -> None:
    rules = [ar.Rule(ar.L1(0.5), layer=layer, placement="output") for layer in ("norm", "table")]
    model = attach(transformer(), ar.Spec(rules))
    with pytest.warns(UserWarning, match=r"norm/output/l1 counts every time step: the mask of 'table' does not reach"):
        model(TOKENS)
    model(TOKENS)
