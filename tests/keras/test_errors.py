"""What cannot be regularized as asked is an error with a cure, never a silent zero."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import attach, detach, losses, sites, total

LAYERS = keras.layers
X = np.ones((4, 3), np.float32)


def spec(layer: str = "hidden", placement: str = "output") -> ar.Spec:
    return ar.Spec([ar.Rule(ar.L1(1.0), layer=layer, placement=placement)])


def model() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), LAYERS.Dense(2, name="hidden"), LAYERS.ReLU(name="relu")])


def test_a_misspelt_layer() -> None:
    with pytest.raises(ar.SpecError, match=r"matches no layer: layer='hiden'.*Did you mean 'hidden'\?"):
        attach(model(), spec("hiden"))


@pytest.mark.parametrize("fit", [False, True])
def test_a_misspelt_layer_of_an_unbuilt_model(fit: bool) -> None:
    late = attach(keras.Sequential([LAYERS.Dense(2, name="hidden")]), spec("hiden"))
    late.compile("sgd", "mse")
    with pytest.raises(ar.SpecError, match=r"Did you mean 'hidden'\?"):
        late.fit(X, X[:, :2], verbose=0) if fit else late(X)


def test_a_placement_the_layer_does_not_have() -> None:
    with pytest.raises(
        ar.SpecError, match=r"layer 'relu' \(ReLU\) has no placement 'pre_activation'; there is 'input', 'output'"
    ):
        attach(model(), spec("relu", "pre_activation"))
    with pytest.raises(ar.SpecError, match=r"has no placement 'kernel'"):
        attach(model(), spec("relu", "kernel"))


class Idle(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = LAYERS.Dense(2), LAYERS.Dense(2)
        self.used.build((None, 3))
        self.idle.build((None, 3))

    def call(self, x: Any) -> Any:
        return self.used(x)


@pytest.mark.parametrize("fit", [False, True])
def test_a_rule_that_never_fires(fit: bool) -> None:
    lazy = attach(Idle(), spec("idle"))
    lazy.compile("sgd", "mse")
    with pytest.raises(ar.SpecError, match=r"'idle/output/l1' never fired"):
        lazy.fit(X, X[:, :2], verbose=0) if fit else lazy(X)


def test_attach_twice() -> None:
    regularized = attach(model(), spec())
    with pytest.raises(ar.SpecError, match=r"is regularized already; call arspec_keras\.detach\(model\) first"):
        attach(regularized, spec())
    assert attach(detach(regularized), spec()) is regularized


def test_what_is_no_model_or_no_spec() -> None:
    with pytest.raises(ar.SpecError, match=r"model is a Dense; expected a keras\.Model"):
        attach(LAYERS.Dense(2), spec())
    with pytest.raises(ar.SpecError, match=r"spec='circles\.json'; expected a Spec"):
        attach(model(), "circles.json")


@pytest.mark.parametrize("ask", [losses, total, sites, detach])
def test_nothing_is_attached(ask: Any) -> None:
    with pytest.raises(ar.SpecError, match=r"nothing is attached to this model; call arspec_keras\.attach"):
        ask(model())


def test_no_forward_pass_yet() -> None:
    with pytest.raises(ar.SpecError, match=r"no losses yet.*Call model\(x\) first"):
        losses(attach(model(), spec()))


def test_an_empty_spec_is_no_regularization() -> None:
    free = attach(model(), ar.Spec([]))
    free(X)
    assert free.losses == []
    assert losses(free) == {}
    assert total(free) == 0.0


def test_layers_that_run_in_a_loop_or_twice() -> None:
    timed = keras.Sequential([keras.Input((4, 3)), LAYERS.TimeDistributed(LAYERS.Dense(2, name="d"), name="td")])
    with pytest.raises(ar.UnsupportedError, match=r"'td/d' \(Dense\), output: it runs once per time step inside 'td'"):
        attach(timed, spec("td/d"))
    with keras.RematScope(mode="full"):
        dense = LAYERS.Dense(2, name="d")
    with pytest.raises(ar.UnsupportedError, match=r"rematerialized \(RematScope\)"):
        attach(keras.Sequential([keras.Input((3,)), dense]), spec("d"))


def test_several_tensors() -> None:
    states = keras.Sequential([keras.Input((4, 3)), LAYERS.LSTM(2, return_state=True, name="l")])
    with pytest.raises(ar.UnsupportedError, match=r"layer 'l' returns 3 tensors; a placement names one tensor"):
        attach(states, spec("l"))(np.ones((2, 4, 3)))


def test_a_kernel_whose_axes_have_no_names() -> None:
    einsum = LAYERS.EinsumDense("abc,dce->abde", output_shape=(None, 5, 2), name="e")
    with pytest.raises(ar.UnsupportedError, match=r"a kernel of shape \(5, 3, 2\) in .* has no names for its axes"):
        attach(keras.Sequential([keras.Input((4, 3)), einsum]), spec("e", "kernel"))


def test_a_custom_layer_without_a_visible_activation() -> None:
    class Odd(LAYERS.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(3, 2))

        def call(self, x: Any) -> Any:
            return keras.ops.relu(x @ self.kernel)

    odd = keras.Sequential([keras.Input((3,)), Odd(name="odd")])
    with pytest.raises(ar.UnsupportedError, match=r"Odd has no attribute `activation`, so its activation function"):
        attach(odd, spec("odd", "pre_activation"))


def test_a_reduction_that_does_not_fit_names_the_rule() -> None:
    rule = ar.Rule(ar.L1(1.0), layer="hidden", placement="output", mean_over=("time",))
    with pytest.raises(ar.SpecError, match=r"hidden/output/l1: mean_over names 'time', but x has the axes"):
        attach(model(), ar.Spec([rule]))(X)
