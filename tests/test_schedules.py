"""Schedules: the factor, its JSON, and what the adapters multiply by it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import arspec as ar
import arspec_jax
import arspec_torch

SCHEDULES = [
    ar.Constant(),
    ar.LinearWarmup(7),
    ar.Cosine(10),
    ar.Cosine(10, final=0.25),
    ar.Step((3, 5), decay=0.5),
    ar.Step([2]),
]


def written_out(schedule: ar.Schedule, step: int) -> float:
    """The factor by its definition, in plain Python."""
    match schedule:
        case ar.LinearWarmup(steps):
            return min(step / steps, 1.0)
        case ar.Cosine(steps, final):
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
        case ar.Step(boundaries, decay):
            return decay ** sum(step >= boundary for boundary in boundaries)
    return 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 7, 9, 10, 11, 10**6])
def test_factor(schedule: ar.Schedule, step: int) -> None:
    assert schedule(step) == pytest.approx(written_out(schedule, step), rel=1e-15, abs=1e-16)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_round_trip(schedule: ar.Schedule) -> None:
    spec = ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement="kernel", schedule=schedule)])
    assert ar.Spec.from_json(spec.to_json()) == spec
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(spec.to_document(), ar.json_schema())


def test_no_schedule_is_not_written() -> None:
    assert "schedule" not in ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement="kernel")]).to_json()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"name": "linear_warmup"}, r"rules\[0\].schedule: no key 'steps'"),
        ({"name": "linear_warmup", "steps": 0}, r"rules\[0\].schedule: LinearWarmup: steps=0; expected a whole number"),
        ({"name": "linear_warmup", "steps": 1.5}, "expected a whole number"),
        ({"name": "linear_warmup", "steps": True}, "expected a whole number"),
        ({"name": "warmup", "steps": 3}, "unknown schedule 'warmup'"),
        ({"name": "cosine", "steps": 3, "final": -1}, "Cosine: final=-1"),
        ({"name": "step", "boundaries": []}, "not empty"),
        ({"name": "step", "boundaries": [3, 3]}, "expected increasing numbers"),
        ({"steps": 3}, "no key 'name'"),
        (3, "got 3; expected an object"),
    ],
)
def test_bad_documents(document: Any, text: str) -> None:
    rule = {"penalty": {"name": "l1", "coefficient": 1.0}, "layer": "**", "placement": "kernel", "schedule": document}
    with pytest.raises(ar.SpecError, match=text):
        ar.Spec.from_document({"arspec": ar.SPEC_VERSION, "rules": [rule]})


def test_bad_arguments() -> None:
    with pytest.raises(ar.SpecError, match=r"schedule=0.5; expected one such as LinearWarmup\(1000\), or None"):
        ar.Rule(ar.L1(1.0), layer="**", placement="kernel", schedule=0.5)
    with pytest.raises(ar.SpecError, match="LinearWarmup: step=-1"):
        ar.LinearWarmup(3)(-1)


def spec_of(schedule: ar.Schedule) -> ar.Spec:
    rules = [
        ar.Rule(ar.L2(0.5), layer="**", placement="kernel", schedule=schedule),
        ar.Rule(ar.L1(0.25), layer="**", placement="kernel"),
    ]
    return ar.Spec(rules)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", [1, 4, 100])
def test_adapters_agree(schedule: ar.Schedule, step: int) -> None:
    kernel = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    model = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(kernel.T.copy()))
    penalties = arspec_torch.attach(model, spec_of(schedule))
    total = penalties.total(step)
    total.backward()
    layer = nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(kernel)
    forward = arspec_jax.attach(layer, spec_of(schedule))

    @nnx.jit
    def of_jax(layer: nnx.Linear, step: jax.Array) -> Any:
        return nnx.value_and_grad(lambda layer: forward(layer, jnp.ones((1, 3)))[1].total(step))(layer)

    value, gradient = of_jax(layer, jnp.asarray(step))
    factor = np.float32(schedule(step))
    expected = ar.value(ar.L2(0.5), kernel) * factor + ar.value(ar.L1(0.25), kernel)
    assert total.item() == pytest.approx(float(expected), rel=2e-7)
    assert float(value) == pytest.approx(float(expected), rel=2e-7)
    np.testing.assert_allclose(model.weight.grad.numpy().T, np.asarray(gradient.kernel[...]), rtol=2e-7)


def test_a_step_is_asked_for() -> None:
    penalties = arspec_torch.attach(torch.nn.Linear(3, 2), spec_of(ar.LinearWarmup(10)))
    with pytest.raises(ar.SpecError, match=r"'model/kernel/l2' has a schedule; say the step: total\(step=...\)"):
        penalties.total()
    assert set(penalties.losses()) == {"model/kernel/l2", "model/kernel/l1"}
