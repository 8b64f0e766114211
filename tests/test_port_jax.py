"""Porting to JAX: bundles of Keras models, written as source code and compared at every level."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import arspec as ar
import arspec_jax
from arspec.port import Bundle, Certificate, PortedSite, Written, read_bundle
from arspec.port._files import attribute_of
from arspec.port._target import target_spec, trained_weights
from arspec_jax.port import check_equinox, check_nnx, load_equinox, load_nnx, write_equinox, write_nnx
from arspec_jax.port._functions import HELPERS

NAMES = ("image", "sequence", "small", "plain", "recurrent")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    """Return the bundles that Keras wrote in a process of its own."""
    folder = tmp_path_factory.mktemp("bundles")
    script = Path(__file__).with_name("port_jax_models.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {name: read_bundle(folder / f"{name}.bundle") for name in NAMES}


def put(bundle: Bundle, written: Written, folder: Path) -> Path:
    """Write source code and weights beside each other, as `arspec port write` does."""
    file = folder / "target.py"
    file.write_text(written.text, encoding="utf-8")
    save_file(written.weights.to_target(bundle.weights), file.with_suffix(".safetensors"))
    return file


def require_all(bundle: Bundle, certificate: Certificate, tolerance: float = 1e-12) -> None:
    """Require that everything was compared, and agrees far better than a certificate asks."""
    assert certificate.holds, certificate.explain()
    levels = certificate.levels()
    trained, sites = len(trained_weights(bundle.graph)), len(bundle.sites)
    assert levels["L0"] == (len(bundle.weights), 0.0, True)
    assert [levels[name][0] for name in ("L1", "L2", "L3", "L4")] == [
        3 * len(bundle.graph.outputs),
        3 * sites,
        2 * trained,
        len(bundle.weights),
    ]
    assert max(worst for _, worst, _ in levels.values()) < tolerance


@pytest.mark.parametrize("name", ["image", "sequence", "recurrent"])
def test_nnx_has_the_numbers_of_keras(bundles: Mapping[str, Bundle], name: str, tmp_path: Path) -> None:
    bundle = bundles[name]
    written = write_nnx(bundle)
    model = attribute_of(put(bundle, written, tmp_path), "load")()
    require_all(bundle, check_nnx(bundle, written, model, faults=False))
    assert "arspec" not in written.text
    assert "keras" not in written.text.lower()


def test_nnx_faults_are_noticed(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["small"]
    written = write_nnx(bundle)
    weights = written.weights.to_target(bundle.weights)
    model = load_nnx(put(bundle, written, tmp_path), written.class_name, weights)
    certificate = check_nnx(bundle, written, model)
    require_all(bundle, certificate)
    assert {name.partition(" (")[0]: found[:2] for name, found in certificate.faults.items()} == {
        "square kernel transposed": "L1",
        "padding on the wrong side": "L1",
        "epsilon of another framework": "L1",
        "momentum not inverted": "L4",
        "GELU approximated by tanh": "L1",
        "coefficient twice as large": "L2",
        "activity summed over the batch": "L2",
        "activity before the activation function": "L2",
        "penalty as decoupled weight decay": "L4",
        "penalty as decay of all weights": "L4",
    }
    assert "first at 'hidden'" in certificate.faults["GELU approximated by tanh (hidden)"]
    assert "first at 'bn'" in certificate.faults["epsilon of another framework (bn)"]


def test_equinox_has_the_numbers_of_keras(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["plain"]
    written = write_equinox(bundle)
    model = attribute_of(put(bundle, written, tmp_path), "load")()
    require_all(bundle, check_equinox(bundle, written, model, faults=False))
    assert "arspec" not in written.text
    wrong = written.weights.to_target(bundle.weights)
    wrong["hidden.weight"] = wrong["hidden.weight"].T
    with pytest.raises(ar.SpecError, match=r"hidden\.weight has shape \(49, 3\), not \(3, 49\), looks transposed"):
        load_equinox(tmp_path / "target.py", "Plain", wrong)


def test_equinox_has_the_recurrent_layers_of_keras(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["recurrent"]
    written = write_equinox(bundle)
    certificate = check_equinox(bundle, written, attribute_of(put(bundle, written, tmp_path), "load")())
    require_all(bundle, certificate)
    assert certificate.faults["gates c and o swapped (lstm)"].startswith("L1")
    assert written.weights.invertible
    rule = ar.Spec([ar.Rule(ar.L2(1.0), layer="gru", placement="bias")])
    with pytest.raises(ar.UnsupportedError, match=r"gru/bias/l2: the layer 'gru' has no 'bias' that can be seen"):
        write_equinox(replace(bundle, spec=rule, sites=(PortedSite("gru/bias/l2", 0, "gru", "bias"),)))


def test_equinox_has_the_batch_normalization_of_keras(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["small"]
    written = write_equinox(bundle)
    file = put(bundle, written, tmp_path)
    certificate = check_equinox(bundle, written, load_equinox(file, "Small", written.weights.to_target(bundle.weights)))
    require_all(bundle, certificate)
    assert certificate.faults["epsilon of another framework (bn)"].startswith("L1")
    assert certificate.faults["momentum not inverted (bn)"].startswith("L4 after/bn/moving_mean")
    assert "first at 'bn'" in certificate.faults["epsilon of another framework (bn)"]
    model, state = attribute_of(file, "load")()
    x = jnp.asarray(bundle.probe.inputs["a"][0], jnp.float32).transpose(0, 3, 1, 2)
    (_, after), penalties = arspec_jax.attach(model, target_spec(bundle, written))(model, x, state)
    assert not np.array_equal(after.get(model.bn.mean), state.get(model.bn.mean))
    assert [key.rpartition("/")[2] for key in penalties] == [site.key.rpartition("/")[2] for site in bundle.sites]


def test_equinox_refuses_by_name(bundles: Mapping[str, Bundle]) -> None:
    with pytest.raises(ar.UnsupportedError, match="'block/frozen': a frozen layer has no exact counterpart in equinox"):
        write_equinox(bundles["image"])


def test_weights_that_do_not_fit(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["small"]
    written = write_nnx(bundle)
    file = put(bundle, written, tmp_path)
    weights = written.weights.to_target(bundle.weights)
    wrong = weights | {"out.kernel": weights["out.kernel"].T, "more.bias": np.zeros(2, np.float32)}
    del wrong["bn.mean"]
    with pytest.raises(ar.SpecError) as error:
        load_nnx(file, "Small", wrong)
    assert all(
        text in str(error.value)
        for text in (
            "bn.mean (3,) is missing",
            "more.bias (2,) is too much",
            "out.kernel has shape (2, 3), not (3, 2), looks transposed",
        )
    )
    save_file(wrong | {"bn.mean": weights["bn.mean"]}, file.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match=r"out\.kernel has shape \(2, 3\); expected \(3, 2\)"):
        attribute_of(file, "load")()
    with pytest.raises(ar.SpecError, match="has no 'Other'"):
        load_nnx(file, "Other", weights)


def test_helpers_have_the_gradients_of_tensorflow_at_kinks() -> None:
    scope = {"jax": jax, "jnp": jnp, "nnx": nnx}
    for text in HELPERS.values():
        exec(text, scope)
    x = jnp.asarray([-4.0, -3.0, 0.0, 1.0, 3.0, 6.0, 7.0])

    def slopes(name: str, *rest: float) -> list[float]:
        function = scope[name]
        return jax.vmap(jax.grad(lambda x: function(x, *rest)))(x).tolist()  # pyright: ignore[reportCallIssue]

    assert slopes("relu6") == [0, 0, 0, 1, 1, 0, 0]
    assert slopes("leaky_relu", 0.25) == [0.25, 0.25, 0.25, 1, 1, 1, 1]
    assert slopes("hard_sigmoid") == pytest.approx([0, 0, 1 / 6, 1 / 6, 0, 0, 0])
    assert slopes("hard_silu") == pytest.approx([0, 0, 0.5, 5 / 6, 1, 1, 1])
