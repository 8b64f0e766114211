"""Penalties of sharded arrays: the bits of one device, on automatic and on explicit axes, or an error."""

import os
import subprocess
import sys

PROGRAM = """
from contextlib import nullcontext
import jax, numpy as np, arspec as ar, arspec_jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

penalties = (ar.L1(0.1) + ar.KLSparsity(0.1, target=0.05), ar.DeCov(0.1))
x = np.random.default_rng(0).uniform(size=(8, 3)).astype("float32")
mask = np.array([True, False, True, True, True, True, False, True])

def same(sharded, penalty, mask):
    def value(x, mask):
        return arspec_jax.value(penalty, x, mean_over="batchmean", mask=mask)

    wanted = ar.value(penalty, x, mean_over="batchmean", mask=mask)
    slope = ar.gradient(penalty, x, mean_over="batchmean", mask=mask)
    results = [jax.value_and_grad(value)(sharded, mask), jax.jit(jax.value_and_grad(value))(sharded, mask)]
    assert all(gradient.sharding.spec == sharded.sharding.spec for _, gradient in results)
    return all(float(v) == wanted and (np.asarray(g) == slope).all() for v, g in results)

for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", None)))
    with jax.set_mesh(mesh):
        print(kind.name, [same(sharded, penalty, None) for penalty in penalties], same(sharded, penalties[0], mask))
try:
    arspec_jax.value(ar.L1(0.1), sharded)
except ar.UnsupportedError as error:
    print(error)
"""


def test_b8_c5_shards_count_as_one_batch() -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    automatic, explicit, refused = done.stdout.splitlines()
    assert automatic == "Auto [True, True] True"
    assert explicit == "Explicit [True, True] True"
    assert refused.startswith(
        "an array is sharded over explicit axes of a mesh that is not set; say `with jax.set_mesh"
    )
