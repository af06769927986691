"""Factorisations under vmap: the same values and derivatives, and no program that never ends."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import linalg
from tests.placing import put

DRAWN = np.random.default_rng(0).normal(size=(5, 4, 4))
MATRICES = put(DRAWN @ DRAWN.swapaxes(1, 2) + np.eye(4))
RIGHT = put(np.random.default_rng(1).normal(size=(5, 4)))


@pytest.mark.parametrize(
    ("function", "oracle"),
    [
        (linalg.whitening, lambda matrix: np.linalg.inv(np.linalg.cholesky(matrix))),
        (linalg.eigenvalues, np.linalg.eigvalsh),
        (linalg.spectral_norm, lambda matrix: np.linalg.norm(matrix, 2)),
        (lambda matrix: linalg.solve_positive(matrix, RIGHT[0]), lambda matrix: np.linalg.solve(matrix, RIGHT[0])),
        (lambda matrix: (lambda w, v: (v * w[None]) @ v.T)(*linalg.eigh(matrix)), np.asarray),
    ],
)
def test_values_one_by_one_and_mapped(function, oracle):
    expected = np.stack([oracle(np.asarray(matrix)) for matrix in MATRICES])
    np.testing.assert_allclose(np.stack([function(matrix) for matrix in MATRICES]), expected, atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(MATRICES), expected, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(jax.vmap(function))(MATRICES[None])[0], expected, atol=1e-12)


def test_right_hand_sides_alone_can_be_mapped():
    found = jax.vmap(linalg.solve_positive, in_axes=(None, 0))(MATRICES[0], RIGHT)
    np.testing.assert_allclose(found, np.linalg.solve(np.asarray(MATRICES[0]), np.asarray(RIGHT).T).T, atol=1e-12)


def test_derivatives_forward_reverse_and_mapped():
    def value(matrix, b):
        return jnp.vdot(b, linalg.solve_positive(matrix, b))

    inverse = np.linalg.inv(np.asarray(MATRICES))
    solved = np.einsum("nij,nj->ni", inverse, np.asarray(RIGHT))
    by_matrix, by_right = jax.vmap(jax.grad(value, argnums=(0, 1)))(MATRICES, RIGHT)
    np.testing.assert_allclose(by_right, 2 * solved, atol=1e-10)
    symmetric = (np.asarray(by_matrix) + np.asarray(by_matrix).swapaxes(1, 2)) / 2
    np.testing.assert_allclose(symmetric, -solved[:, :, None] * solved[:, None, :], atol=1e-10)
    _, tangent = jax.jvp(lambda b: value(MATRICES[0], b), (RIGHT[0],), (RIGHT[1],))
    assert tangent == pytest.approx(2 * float(solved[0] @ np.asarray(RIGHT[1])))


@pytest.mark.parametrize(
    "function",
    [
        lambda matrix: jnp.sin(linalg.whitening(matrix)).sum(),
        lambda matrix: jnp.sin(linalg.eigenvalues(matrix)).sum(),
        lambda matrix: (linalg.eigh(matrix)[1] ** 3).sum(),
        linalg.spectral_norm,
        lambda matrix: jnp.sin(linalg.solve_positive(matrix, matrix[0])).sum(),
    ],
)
def test_derivatives_equal_differences_and_those_of_jax(function):
    """Along symmetric directions, forward, reverse and twice."""
    along = put(DRAWN[1] + DRAWN[1].T) / 10
    at = MATRICES[0]
    step = 1e-5
    expected = (function(at + step * along) - function(at - step * along)) / (2 * step)
    found = jax.jvp(function, (at,), (along,))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jnp.vdot(jax.grad(function)(at), along), expected, rtol=1e-6, atol=1e-8)

    def slope(t):
        return jax.grad(lambda t: function(at + t * along))(t)

    twice = (slope(step) - slope(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(slope)(0.0), twice, rtol=1e-4, atol=1e-6)


MANY = """
import jax, jax.numpy as jnp
from fmu_jax import linalg
x = jax.random.normal(jax.random.key(0), (8, 64, 64))
x = x @ x.swapaxes(1, 2) + 64 * jnp.eye(64)

@jax.jit
def several(x):
    return sum(jax.vmap(linalg.whitening)(x + i).sum() + jax.vmap(linalg.eigenvalues)(x + i).sum() for i in range(6))

for _ in range(30):
    several(x).block_until_ready()

def moved(matrix):
    return jax.jvp(lambda m: linalg.whitening(m).sum() + linalg.spectral_norm(m), (matrix,), (matrix,))[1]

@jax.jit
def derived(x):
    reverse = jax.grad(lambda m: linalg.solve_positive(m, m[0]).sum())
    return sum(jax.vmap(moved)(x + i).sum() + jax.vmap(reverse)(x + i).sum() for i in range(3))

for _ in range(10):
    derived(x).block_until_ready()
print("done")
"""


@pytest.mark.slow
def test_independent_factorisations_of_many_matrices_end():
    """With XLA's own mapping this stops for ever on a machine of two cores (jaxlib 0.10.2)."""
    environment = {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [sys.executable, "-c", MANY], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout == "done\n", ended.stderr


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_cpus_take_one_after_another(platform, loops):
    traced = jax.jit(jax.vmap(linalg.whitening)).trace(MATRICES.astype(jnp.float32))
    assert ("stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()) == loops
