"""Factorisations under vmap: the same values and derivatives as one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import linalg

TALL = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 4)))


@pytest.mark.parametrize("columns", [TALL, TALL.swapaxes(1, 2)])
def test_singular_vectors_and_values(columns):
    vectors, values = jax.jit(jax.vmap(linalg.left_singular_vectors))(columns)
    for matrix, u, s in zip(np.asarray(columns), vectors, values, strict=True):
        expected, wanted, _ = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(s, wanted, atol=1e-12)
        np.testing.assert_allclose(np.abs(np.asarray(u).T @ expected), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(jax.vmap(linalg.singular_values)(columns), values, atol=1e-12)


def test_orthonormal_columns_span_the_same():
    for matrix, q in zip(np.asarray(TALL), jax.vmap(linalg.orthonormal_columns)(TALL), strict=True):
        np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(q @ (q.T @ matrix), matrix, atol=1e-12)


def test_derivatives_of_singular_values():
    found = jax.vmap(jax.grad(lambda matrix: linalg.singular_values(matrix).sum()))(TALL)
    for matrix, gradient in zip(np.asarray(TALL), found, strict=True):
        u, _, v = np.linalg.svd(matrix, full_matrices=False)
        np.testing.assert_allclose(gradient, u @ v, atol=1e-10)
