"""What NumPy moves for JAX in tests is what JAX itself would have made: values, types, devices and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.lax import lax, slicing

from tests import strict

X = np.arange(6.0).reshape(2, 3)
EIGHT = jax.NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("data"))
PRIMITIVES = [getattr(module, name) for module in (lax, slicing) for name in dir(module) if name.endswith("_p")]
MOVED = [one for one in PRIMITIVES if getattr(getattr(one, "impl", None), "__module__", "") == "tests.moving"]


def on(device):
    return jax.device_put(X, jax.devices()[device])


def in_mesh(make):
    with jax.set_mesh(EIGHT.mesh):
        return make()


CASES = {
    "an array": lambda: jnp.asarray(X),
    "in Fortran's order": lambda: jnp.asarray(np.asfortranarray(X)),
    "backwards": lambda: jnp.asarray(X[:, ::-1]),
    "converted": lambda: jnp.asarray(X, jnp.float32),
    "a number": lambda: jnp.asarray(2.0),
    "NumPy's number": lambda: jnp.asarray(np.float32(2)),
    "a list": lambda: jnp.array([1, 2]),
    "truth values": lambda: jnp.array([True]),
    "complex": lambda: jnp.asarray(np.array([1 + 2j])),
    "big endian": lambda: jnp.asarray(np.array([1.0], ">f8")),
    "text": lambda: jnp.asarray(np.array(["a"])),
    "bfloat16": lambda: jnp.ones(3, jnp.bfloat16),
    "zeros": lambda: jnp.zeros((2, 0, 3)),
    "full": lambda: jnp.full((2, 2), np.nan),
    "weak": lambda: jnp.broadcast_to(jnp.asarray(1.0), (3,)),
    "counted": lambda: jnp.arange(2, 9, 3),
    "counted along an axis": lambda: jax.lax.broadcasted_iota(jnp.int32, (2, 3, 4), 1),
    "identity": lambda: jnp.eye(3),
    "reshaped": lambda: jnp.asarray(X).T.reshape(-1),
    "squeezed": lambda: jnp.squeeze(jnp.ones((1, 3, 1)), -1),
    "transposed": lambda: jnp.transpose(jnp.ones((2, 3, 4)), (2, 0, 1)),
    "broadcast": lambda: jnp.broadcast_to(jnp.arange(3), (2, 3)),
    "a row": lambda: jnp.asarray(X)[-1],
    "a row that is not there": lambda: jnp.asarray(X)[5],
    "strided": lambda: jnp.asarray(X)[:, ::2],
    "a part that would reach beyond": lambda: jax.lax.dynamic_slice(jnp.asarray(X), (5, -9), (1, 2)),
    "stacked": lambda: jnp.stack([jnp.asarray(X)] * 2),
    "concatenated": lambda: jnp.concatenate([jnp.asarray(X), jnp.zeros((2, 1))], 1),
    "keys": lambda: jax.random.key_data(jax.random.split(jax.random.key(0), 4).reshape(2, 2)[1]),
    "on another device": lambda: on(5).reshape(-1)[2:],
    "of two devices": lambda: jnp.stack([jnp.asarray(X), on(5)]),
    "asked for on another device": lambda: jnp.zeros((2, 3), device=jax.devices()[3]),
    "spread": lambda: jax.device_put(np.arange(16.0), EIGHT).reshape(2, 8),
    "within a mesh": lambda: in_mesh(lambda: jnp.arange(8.0) + jnp.zeros(8)),
    "within jit": lambda: jax.jit(lambda: jnp.asarray(X).reshape(-1)[1:] + jnp.zeros(5))(),
    "mapped": lambda: jax.vmap(lambda row: jnp.zeros(3) + row.reshape(3, 1)[:, 0])(jnp.asarray(X)),
    "differentiated": lambda: jax.grad(lambda x: (x.reshape(-1)[1:] ** 2).sum())(jnp.asarray(X)),
}


def found(make):
    try:
        array = make()
    except (TypeError, ValueError) as error:
        return type(error)
    about = (jax.typeof(array), array.weak_type, array.committed, array.sharding, type(array))
    return (*map(str, about), np.asarray(array).tobytes())


@pytest.mark.skipif(strict.COMPILER != "quick", reason="JAX compiles its own programs, as for users")
@pytest.mark.parametrize("case", CASES)
def test_moved_arrays_are_those_of_jax(case, monkeypatch):
    moved = found(CASES[case])
    assert len(MOVED) >= 8
    for primitive in MOVED:
        monkeypatch.setattr(primitive, "impl", primitive.impl.__wrapped__)
    assert found(CASES[case]) == moved


def test_the_memory_is_not_the_callers():
    given = np.ones(400)
    array = jnp.asarray(given)
    given[0] = 7
    assert array[0] == 1
