"""Tangent spaces against closed forms, NumPy's and SciPy's factorisations, and manifolds whose tangents are known."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from pags_jax import bases, manifold
from pags_jax.manifold import denoiser_basis, local_pca, nearest, principal_angles, project, rank, tangent_basis

SHAPE = (2, 3, 2)
FEATURES = 12

# Compiled whole: an eager call compiles every operation by itself.
bases_of = jax.jit(tangent_basis, static_argnames=("decode", "chunk_size"))
pca_of = jax.jit(local_pca, static_argnames="rank")
nearest_to = jax.jit(nearest, static_argnames=("count", "chunk_size"))
eigenvectors_of = jax.jit(denoiser_basis, static_argnames=("denoise", "rank", "iterations", "chunk_size", "unroll"))
angles_between = jax.jit(principal_angles)
project_by = jax.jit(jax.vmap(project, (None, 0)))


def ranks(basis):
    return np.asarray(jax.jit(rank)(basis)).tolist()


def flat(basis):
    """A basis (k, ...) as rows, in float64."""
    return np.asarray(basis, np.float64).reshape(len(basis), -1)


def projector(basis):
    return flat(basis).T @ flat(basis)


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def linear(columns, shape=SHAPE):
    """The decoder z -> columns z."""
    columns = jnp.asarray(columns)
    return lambda z: (z @ columns.T).reshape(-1, *shape)


# ---------------------------------------------------------------------------------------------- decoders
def test_bases_of_linear_decoders_are_left_singular_vectors_in_order():
    columns = np.random.default_rng(0).normal(size=(FEATURES, 4)) * [1.0, 30.0, 0.1, 5.0]
    u, _, _ = np.linalg.svd(columns, full_matrices=False)
    basis = bases_of(linear(columns), jnp.ones((3, 4)))
    assert (basis.shape, ranks(basis)) == ((3, 4, *SHAPE), [4, 4, 4])
    for vectors in basis:
        np.testing.assert_allclose(np.abs(flat(vectors) @ u), np.eye(4), atol=1e-13)


def sphere(z):
    a, b = z[:, 0], z[:, 1]
    return jnp.stack([jnp.sin(a) * jnp.cos(b), jnp.sin(a) * jnp.sin(b), jnp.cos(a)], 1)


def sphere_tangents(a, b):
    return np.array(
        [
            [np.cos(a) * np.cos(b), -np.sin(a) * np.sin(b)],
            [np.cos(a) * np.sin(b), np.sin(a) * np.cos(b)],
            [-np.sin(a), 0],
        ]
    )


def torus(z):
    a, b = z[:, 0], z[:, 1]
    return jnp.stack([(2 + jnp.cos(a)) * jnp.cos(b), (2 + jnp.cos(a)) * jnp.sin(b), jnp.sin(a)], 1)


def torus_tangents(a, b):
    r = 2 + np.cos(a)
    return np.array([[-np.sin(a) * np.cos(b), -r * np.sin(b)], [-np.sin(a) * np.sin(b), r * np.cos(b)], [np.cos(a), 0]])


@pytest.mark.parametrize(("surface", "tangents"), [(sphere, sphere_tangents), (torus, torus_tangents)])
def test_bases_of_curved_decoders_span_the_known_tangents(surface, tangents):
    """Surfaces in three dimensions, embedded in images by an isometry; at a pole the sphere's Jacobian has rank 1."""
    embedding = orthonormal(np.random.default_rng(1), FEATURES, 3)
    z = np.array([[0.3, 1.0], [1.4, -2.0], [0.0, 0.5], [2.9, 4.0]])
    basis = bases_of(lambda z: (surface(z) @ embedding.T).reshape(-1, *SHAPE), jnp.asarray(z))
    for vectors, (a, b) in zip(basis, z, strict=True):
        expected = scipy.linalg.orth(embedding @ tangents(a, b))
        np.testing.assert_allclose(projector(vectors), expected @ expected.T, atol=1e-13)
    assert ranks(basis) == [2, 2, 1 if surface is sphere else 2, 2]


def test_p14_a_rank_deficient_jacobian_gives_a_smaller_basis():
    """A dead latent, then one that repeats the others: SciPy's `orth` returns three vectors, where the reference then
    asks for the fourth; here the fourth is zero."""
    columns = np.random.default_rng(2).normal(size=(FEATURES, 4))
    dead, repeated = columns.copy(), columns.copy()
    dead[:, 1] = 0
    repeated[:, 1] = columns[:, [0, 2, 3]] @ [0.5, -1.0, 2.0]
    for deficient in (dead, repeated):
        expected = scipy.linalg.orth(deficient)
        with pytest.raises(IndexError):
            expected[:, 3]
        (basis,) = bases_of(linear(deficient), jnp.zeros((1, 4)))
        np.testing.assert_array_equal(basis[3], np.zeros(SHAPE))
        np.testing.assert_allclose(projector(basis), expected @ expected.T, atol=1e-13)
        np.testing.assert_allclose(flat(basis[:3]) @ flat(basis[:3]).T, np.eye(3), atol=1e-13)


def test_p14_a_weak_latent_is_kept_or_dropped_by_rtol():
    """One latent 1e-4 weaker, float32, 3072 features: below the default cut of 3.7e-4, which is SciPy's; above 1e-5."""
    shape = (32, 32, 3)
    columns = np.random.default_rng(3).normal(size=(3072, 4)) / np.sqrt(3072) * [1, 1, 1, 1e-4]
    decode, z = linear(columns.astype(np.float32), shape), jnp.zeros((1, 4), jnp.float32)
    basis_at = partial(bases_of, decode, z)
    by_default = bases_of(decode, z)
    assert by_default.dtype == jnp.float32
    assert ranks(by_default) == [scipy.linalg.orth(columns.astype(np.float32)).shape[1]] == [3]
    assert [ranks(basis_at(rtol=rtol)) for rtol in (3.7e-4, 1e-5)] == [[3], [4]]
    exact = jnp.asarray(scipy.linalg.orth(columns).T.reshape(1, 4, *shape))
    angles = angles_between(basis_at(rtol=1e-5).astype(jnp.float64), exact)
    assert angles.max() < 1e-2  # rounding of 1e-7, over 1e-4


def test_p15_the_jacobian_needs_no_backward_pass():
    """A decoder that has none, a loop of unknown length, against the reverse-mode Jacobian of the same written out."""
    columns = jnp.asarray(np.random.default_rng(4).normal(size=(FEATURES, 3)))

    def looped(z):
        start = (jnp.zeros((), z.dtype), z @ columns.T)
        _, x = jax.lax.while_loop(
            lambda state: state[0] < 3, lambda state: (state[0] + 1, 2 * jnp.sin(state[1])), start
        )
        return x

    def written_out(z):
        return 2 * jnp.sin(2 * jnp.sin(2 * jnp.sin(z @ columns.T)))

    z = jnp.asarray(np.random.default_rng(5).normal(size=(2, 3)))
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.jacrev(looped)(z)
    basis = bases_of(looped, z)
    for number in range(2):
        jacobian = jax.jit(jax.jacrev(lambda z: written_out(z[None])[0]))(z[number])
        expected = scipy.linalg.orth(np.asarray(jacobian))
        np.testing.assert_allclose(projector(basis[number]), expected @ expected.T, atol=1e-12)


def test_a_jacobian_of_zeros_has_rank_zero_and_one_that_is_not_finite_is_reported():
    def decode(z):
        return z @ jnp.zeros((2, 5)) * jnp.where(z[:, :1] > 0, jnp.nan, 1)

    basis = bases_of(decode, jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(basis[0], np.zeros((2, 5)))
    assert np.isnan(basis[1]).all()
    assert ranks(basis) == [0, 2]
    np.testing.assert_array_equal(project_by(basis[:1], jnp.ones((1, 1, 5))), np.zeros((1, 1, 5)))


def test_more_latents_than_features_span_everything():
    columns = np.random.default_rng(6).normal(size=(3, 5))
    basis = bases_of(linear(columns, (3,)), jnp.zeros((1, 5)))
    assert basis.shape == (1, 3, 3)
    np.testing.assert_allclose(projector(basis[0]), np.eye(3), atol=1e-13)


def test_chunks_of_codes_equal_the_whole():
    columns, z = jnp.asarray(np.random.default_rng(7).normal(size=(FEATURES, 3))), jnp.linspace(-1, 1, 15).reshape(5, 3)
    bases = (bases_of(lambda z: jnp.sin(z @ columns.T), z, chunk_size=size) for size in (2, None))
    for chunk, whole in zip(*bases, strict=True):
        np.testing.assert_allclose(projector(chunk), projector(whole), atol=1e-13)


# -------------------------------------------------------------------------------------------- neighbours
def test_local_pca_equals_the_eigenvectors_of_the_sample_covariance():
    images = np.random.default_rng(8).normal(size=(2, 9, *SHAPE))
    basis = pca_of(jnp.asarray(images), rank=3)
    assert basis.shape == (2, 3, *SHAPE)
    for vectors, neighbours in zip(basis, images, strict=True):
        _, eigenvectors = np.linalg.eigh(np.cov(neighbours.reshape(9, -1).T))
        np.testing.assert_allclose(np.abs(flat(vectors) @ eigenvectors[:, :-4:-1]), np.eye(3), atol=1e-12)


def test_local_pca_finds_the_subspace_of_a_gaussian():
    rng = np.random.default_rng(9)
    axes = orthonormal(rng, FEATURES, FEATURES)
    deviations = np.array([3.0, 2.0] + 10 * [0.1])
    images = 5 + (rng.normal(size=(1, 4000, FEATURES)) * deviations) @ axes.T
    angles = angles_between(pca_of(jnp.asarray(images), rank=2), jnp.asarray(axes[None, :, :2].swapaxes(1, 2)))
    # An axis of deviation s wanders by about 0.1 / (s sqrt(4000)) in each of ten directions.
    assert angles.max() < 0.02


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_neighbours_span_nothing_and_others_what_they_do_at_any_scale(scale, dtype):
    """The mean of equal images is not quite these images, and their float32 pixels are rounded."""
    rng = np.random.default_rng(13)
    image = rng.uniform(size=(1, 1, 28, 28, 1))
    equal = np.repeat(image, 7, 1)
    steps = rng.normal(size=(2, 28, 28, 1))
    line = image + 1e-3 * rng.normal(size=(1, 7, 1, 1, 1)) * steps[0]
    plane = line + 1e-3 * rng.normal(size=(1, 7, 1, 1, 1)) * steps[1]
    images = jnp.asarray(scale * np.concatenate([equal, line, plane]), dtype)
    assert images.dtype == dtype
    assert ranks(pca_of(images, rank=6)) == [0, 1, 2]


def test_local_pca_of_nearest_neighbours_approaches_the_tangents_of_a_torus():
    """An error of first order in the neighbours' distance, which sixteen times the data makes four times smaller."""
    rng = np.random.default_rng(10)
    queries = rng.uniform(-np.pi, np.pi, size=(30, 2))
    tangents = np.stack([scipy.linalg.orth(torus_tangents(a, b)).T for a, b in queries])
    errors = []
    for size in (1000, 16000):
        data = torus(jnp.asarray(rng.uniform(-np.pi, np.pi, size=(size, 2))))
        neighbours = data[nearest_to(torus(jnp.asarray(queries)), data, count=20, itself=None)]
        errors.append(angles_between(pca_of(neighbours, rank=2), jnp.asarray(tangents))[:, 1].mean())
    np.testing.assert_allclose(errors[0] / errors[1], 4, atol=1)
    assert errors[1] < 0.03


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_nearest_images_equal_a_search_through_all(chunk_size):
    rng = np.random.default_rng(11)
    data, others = 7 + rng.normal(size=(40, *SHAPE)), 7 + rng.normal(size=(5, *SHAPE))
    rows = np.array([3, 39, 0, 17, 8])

    def search(x, excluded):
        distances = ((x[:, None] - data[None]) ** 2).sum((2, 3, 4))
        if excluded is not None:
            distances[np.arange(5), excluded] = np.inf
        return distances.argsort(1)[:, :6]

    found = partial(nearest_to, data=jnp.asarray(data), count=6, chunk_size=chunk_size)
    np.testing.assert_array_equal(found(jnp.asarray(others), itself=None), search(others, None))
    np.testing.assert_array_equal(found(jnp.asarray(data[rows]), itself=None)[:, 0], rows)
    np.testing.assert_array_equal(found(jnp.asarray(data[rows]), itself=jnp.asarray(rows)), search(data[rows], rows))


def test_a_copy_of_an_image_elsewhere_is_its_neighbour():
    data = jnp.asarray(np.random.default_rng(12).normal(size=(6, 4))).at[4].set(0.0).at[1].set(0.0)
    assert nearest_to(data[4:5], data, count=5, itself=jnp.array([4]))[0, 0] == 1


# --------------------------------------------------------------------------------------------- denoisers
@pytest.fixture(scope="module")
def gaussian():
    """Mean, eigenvectors and eigenvalues of a Gaussian on images in [-1, 1]."""
    rng = np.random.default_rng(13)
    return rng.normal(size=FEATURES) / 3, orthonormal(rng, FEATURES, FEATURES), np.array([2, 1, 0.5] + 9 * [0.01])


@pytest.fixture(scope="module")
def gaussian_denoiser(gaussian):
    """E[u_0 | u]: shrinks each axis by variance / (variance + sigma^2)."""
    mean, axes, variances = (jnp.asarray(array) for array in gaussian)

    def denoise(u, sigma):
        centred = u.reshape(len(u), -1) - mean[None]
        return (mean[None] + (centred @ axes * (variances / (variances + sigma**2))[None]) @ axes.T).reshape(u.shape)

    return denoise


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_the_exact_denoiser_of_a_gaussian_gives_its_principal_axes(sigma, gaussian, gaussian_denoiser):
    x = jnp.asarray(np.random.default_rng(14).uniform(size=(2, *SHAPE)))
    options = {"rank": 3, "key": jax.random.key(0), "iterations": 40}
    basis = eigenvectors_of(gaussian_denoiser, x, sigma_pm1=sigma, **options)
    for vectors in basis:
        np.testing.assert_allclose(np.abs(flat(vectors) @ gaussian[1][:, :3]), np.eye(3), atol=1e-9)


def circle_denoiser(points, u, sigma):
    """E[u_0 | u] over points of equal probability."""
    squares = jnp.sum((u.reshape(len(u), 1, -1) - points[None]) ** 2, 2)
    return (jax.nn.softmax(-squares / (2 * sigma**2)) @ points).reshape(u.shape)


def test_the_exact_denoiser_of_a_circle_gives_its_tangent_then_its_curvature():
    """Its Jacobian is the posterior covariance over sigma^2, here of rank 2; points lie symmetrically about a point."""
    plane, sigma, turn = orthonormal(np.random.default_rng(15), FEATURES, 2), 0.15, 2 * np.pi * np.arange(300) / 300
    points = 0.8 * np.stack([np.cos(turn), np.sin(turn)], 1) @ plane.T
    chosen = np.array([0, 41, 200])
    x = jnp.asarray((points[chosen].reshape(3, *SHAPE) + 1) / 2)
    basis = eigenvectors_of(
        partial(circle_denoiser, jnp.asarray(points)), x, sigma_pm1=sigma, rank=3, key=jax.random.key(1), iterations=12
    )
    assert ranks(basis) == [2, 2, 2]
    for vectors, row in zip(basis, chosen, strict=True):
        tangent = plane @ [-np.sin(turn[row]), np.cos(turn[row])]
        np.testing.assert_allclose(np.abs(flat(vectors)[0] @ tangent), 1, rtol=1e-12)
        weights = np.exp(-((points - points[row]) ** 2).sum(1) / (2 * sigma**2))
        covariance = np.cov(points.T, aweights=weights, ddof=0)
        _, eigenvectors = np.linalg.eigh(covariance)
        np.testing.assert_allclose(np.abs(flat(vectors)[:2] @ eigenvectors[:, :-3:-1]), np.eye(2), atol=1e-10)


def test_a_jacobian_that_is_not_symmetric_is_made_so_and_ordered_by_absolute_eigenvalue():
    rng = np.random.default_rng(16)
    axes, turn = orthonormal(rng, FEATURES, FEATURES), rng.normal(size=(FEATURES, FEATURES))
    jacobian = (axes * np.array([3.0, -2.5, 2.0] + 9 * [0.3])) @ axes.T + (turn - turn.T)

    def denoise(u, sigma):
        return u @ jnp.asarray(jacobian).T

    x = jnp.zeros((1, FEATURES))
    basis = eigenvectors_of(denoise, x, sigma_pm1=0.5, rank=3, key=jax.random.key(2), iterations=40)
    np.testing.assert_allclose(np.abs(flat(basis[0]) @ axes[:, :3]), np.eye(3), atol=1e-9)


def test_loops_steps_written_out_and_chunks_are_the_same(gaussian_denoiser):
    """Before it has converged, too."""
    x = jnp.asarray(np.random.default_rng(17).uniform(size=(3, *SHAPE)))
    options = {"sigma_pm1": 0.3, "rank": 4, "key": jax.random.key(3), "iterations": 3}
    of = partial(eigenvectors_of, gaussian_denoiser, x, **options)
    np.testing.assert_allclose(of(unroll=True, chunk_size=2), of(), rtol=1e-9, atol=1e-9)


# ----------------------------------------------------------------------------------- projections and angles
def test_projections_equal_the_products_of_matrices():
    rng = np.random.default_rng(18)
    vectors = np.stack([orthonormal(rng, FEATURES, 4).T for _ in range(3)])
    vectors[1, 2:] = 0
    basis, v = jnp.asarray(vectors.reshape(3, 4, *SHAPE)), rng.normal(size=(5, 3, *SHAPE))
    found = project_by(basis, jnp.asarray(v))
    for number in range(3):
        expected = v[:, number].reshape(5, -1) @ projector(vectors[number])
        np.testing.assert_allclose(found[:, number].reshape(5, -1), expected, atol=1e-14)
    assert ranks(basis) == [4, 2, 4]


def test_principal_angles_equal_scipys():
    rng = np.random.default_rng(19)
    a, b = (np.stack([orthonormal(rng, FEATURES, k) for _ in range(3)]) for k in (5, 3))
    found = angles_between(*(jnp.asarray(v.swapaxes(1, 2).reshape(3, -1, *SHAPE)) for v in (a, b)))
    for angles, of_a, of_b in zip(found, a, b, strict=True):
        np.testing.assert_allclose(angles, scipy.linalg.subspace_angles(of_a, of_b)[::-1], rtol=1e-12)


KNOWN = np.array([1e-12, 1e-9, 2e-5, 0.3, 1.2, np.pi / 2])


def known_angles(rng):
    """Two bases of six vectors at the known angles, each mixed by a rotation, in twelve turned dimensions."""
    axes = orthonormal(rng, FEATURES, FEATURES)
    a, b = axes[:, :6], axes[:, :6] * np.cos(KNOWN) + axes[:, 6:] * np.sin(KNOWN)
    return ((v @ orthonormal(rng, 6, 6)).T[None] for v in (a, b))


@pytest.mark.parametrize(("dtype", "rounding"), [(jnp.float64, 2e-15), (jnp.float32, 1e-6)])
def test_small_and_large_angles_keep_their_digits(dtype, rounding):
    """With cosines alone, float64 would lose angles below 1e-8, and float32 those below 3e-4."""
    a, b = (jnp.asarray(v, dtype) for v in known_angles(np.random.default_rng(20)))
    angles = angles_between(a, b)
    assert angles.dtype == dtype
    np.testing.assert_allclose(angles[0], KNOWN, rtol=0, atol=rounding)


def test_vectors_of_zero_make_no_angle():
    a, b = (jnp.asarray(v) for v in known_angles(np.random.default_rng(21)))
    zeros = jnp.zeros_like(a)
    few, none = jnp.concatenate([a[:, :2], zeros[:, :3]], 1), zeros[:, :3]
    expected = [*scipy.linalg.subspace_angles(np.asarray(a[0, :2]).T, np.asarray(b[0]).T)[::-1], *3 * [np.nan]]
    for angles in (angles_between(few, b), angles_between(b, few)):
        np.testing.assert_allclose(angles[0], expected, rtol=1e-6, atol=1e-15)
    assert np.isnan(angles_between(none, b)).all()
    np.testing.assert_allclose(angles_between(few, few)[0], [0, 0, *3 * [np.nan]], atol=1e-15)


def test_all_are_float32_for_float32_images():
    rng = np.random.default_rng(22)
    x = jnp.asarray(rng.uniform(size=(2, *SHAPE)), jnp.float32)
    columns = jnp.asarray(rng.normal(size=(FEATURES, 3)), jnp.float32)
    options = {"sigma_pm1": np.float64(0.5), "rank": 2, "key": jax.random.key(0), "iterations": 1}
    for basis in (
        bases_of(linear(columns), jnp.zeros((2, 3), jnp.float32), rtol=1e-5),
        pca_of(jnp.stack([x, x + 1, x**2], 1), rank=2),
        eigenvectors_of(lambda u, sigma: u * sigma, x, **options),
    ):
        assert basis.dtype == jnp.float32
        assert project_by(basis, x[None]).dtype == jnp.float32
        np.testing.assert_allclose(flat(basis[0]) @ flat(basis[0]).T, np.eye(len(basis[0])), atol=1e-6)


# ---------------------------------------------------------------------------------------------- refusals
X = jnp.ones((2, *SHAPE))


def eigenvector(x, **options):
    """The leading one of a denoiser that does nothing."""
    return denoiser_basis(
        lambda u, sigma: u, x, **{"sigma_pm1": 0.5, "rank": 1, "key": jax.random.key(0), "iterations": 1, **options}
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tangent_basis(lambda z: z[0], jnp.ones((2, 3))), r"`decode` must map .* but \(1, 3\) to \(3,\)"),
        (lambda: tangent_basis(lambda z: jnp.ones((4, 3)), jnp.ones((2, 3))), r"`decode` must map .* to \(4, 3\)"),
        (lambda: tangent_basis(lambda z: z, jnp.ones((0, 3))), r"codes must be floats .* the shape \(0, 3\)"),
        (lambda: tangent_basis(lambda z: z, jnp.ones((2, 3)), rtol=1.0), "`rtol` must be .* below 1, got 1.0"),
        (lambda: tangent_basis(lambda z: z, jnp.ones((2, 3)), chunk_size=0), "`chunk_size` .* at least 1, got 0"),
        (lambda: local_pca(jnp.ones((2, 3)), rank=1), r"must have the shape \(n, m, ...\), got \(2, 3\)"),
        (lambda: local_pca(jnp.ones((2, 4, 9)), rank=4), "`rank` must be a whole number from 1 to 3, got 4"),
        (lambda: local_pca(jnp.full((2, 4, 9), jnp.nan), rank=1), "NaN or infinite"),
        (lambda: nearest(X, X[:, :1], count=1, itself=None), "images of one shape"),
        (lambda: nearest(X, X, count=2, itself=jnp.array([0, 1])), "`count` must be .* from 1 to 1, got 2"),
        (lambda: nearest(X, X, count=1, itself=jnp.array([0, 2])), "`itself` must be rows from 0 to 1 of `data`"),
        (
            lambda: tangent_basis(lambda z: z.astype(jnp.bfloat16), jnp.ones((2, 3))),
            "`decode` makes bfloat16, whose rounding hides the rank .* float32, or give `rtol`",
        ),
        (lambda: eigenvector(255 * X + 100), r"images must lie in \[0, 1\]"),
        (lambda: eigenvector(X, rank=13), "`rank` .* from 1 to 12, got 13"),
        (lambda: eigenvector(X, iterations=0), "`iterations` .* 1, got 0"),
        (lambda: eigenvector(X / 0), "NaN or infinite"),
        (lambda: eigenvector(X, sigma_pm1=0.0), "`sigma_pm1` must be one finite number above 0, got 0.0"),
        (lambda: eigenvector(X, sigma_pm1=-0.5), "`sigma_pm1` .* got -0.5"),
        (lambda: eigenvector(X, sigma_pm1=np.nan), "`sigma_pm1` .* got nan"),
        (lambda: eigenvector(X, sigma_pm1=np.ones(2)), "`sigma_pm1` must be one finite number"),
        (lambda: project(jnp.ones((2, 0, *SHAPE)), X), r"with k at least 1 .* got the shape \(2, 0, 2, 3, 2\)"),
        (lambda: rank(jnp.ones((2, 0, *SHAPE))), "with k at least 1"),
        (lambda: principal_angles(jnp.ones((2, 0, 3)), jnp.ones((2, 1, 3))), "with k at least 1"),
        (lambda: project(jnp.ones((2, 5, 2, 3)), X), r"need a basis \(n, k, ...image\), got \(2, 5, 2, 3\)"),
        (lambda: principal_angles(jnp.ones((2, 1, 3)), jnp.ones((2, 1, 4))), "two bases for the same images"),
    ],
)
def test_what_cannot_be_used_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_bases_of_bfloat16_are_those_of_float32():
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(3, 30)), jnp.bfloat16)
    z = jnp.asarray(rng.normal(size=(2, 3)), jnp.bfloat16)

    def decode(z):
        return jnp.tanh(z @ matrix.astype(z.dtype))

    @jax.jit
    def bases(z, x):
        exact, found = (tangent_basis(decode, z) for z in (z.astype(jnp.float32), z))
        rounded = tangent_basis(lambda z: decode(z.astype(jnp.bfloat16)), z, rtol=0.01)
        pca, wide = (local_pca(x, rank=2) for x in (x, x.astype(jnp.float32)))
        angles = principal_angles(rounded, exact), principal_angles(pca, wide)
        return exact, found, pca, eigenvector(x[:, 0]), angles

    x = jnp.asarray(rng.uniform(size=(2, 8, 30)), jnp.bfloat16)
    exact, found, pca, flat, (of_rounded, of_pca) = bases(z, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=1e-5)
    assert np.nanmax(of_rounded) < 0.05
    assert np.nanmax(of_pca) < 1e-3
    assert (pca.dtype, flat.dtype) == (jnp.float32, jnp.float32)


def test_codes_that_are_no_floats_are_refused():
    unchecked = inspect.unwrap(tangent_basis)  # annotations are checked in tests only
    with pytest.raises(ValueError, match="codes must be floats"):
        unchecked(lambda z: z, jnp.ones((2, 3), int))


def test_a_restricted_tangent_space_is_that_of_the_cut_vectors():
    rng = np.random.default_rng(8)
    basis = np.linalg.qr(rng.normal(size=(3, 12, 4)))[0].transpose(0, 2, 1).reshape(3, 4, 3, 4)
    mask = rng.random((3, 3, 4)) < 0.6
    mask[1], mask[2] = False, np.arange(12).reshape(3, 4) < 2
    found = np.asarray(manifold.restrict(jnp.asarray(basis), jnp.asarray(mask))).reshape(3, 4, 12)
    assert manifold.rank(jnp.asarray(found)).tolist() == [4, 0, 2]
    for vectors, kept, restricted in zip(basis, mask, found, strict=True):
        expected = scipy.linalg.orth(np.where(kept, vectors, 0).reshape(4, 12).T) if kept.any() else np.zeros((12, 0))
        np.testing.assert_allclose(restricted.T @ restricted, expected @ expected.T, atol=1e-12)
    with pytest.raises(ValueError, match="`mask` must be truth values for the images"):
        manifold.restrict(jnp.asarray(basis), jnp.ones((3, 3, 5), bool))


def test_pixels_vary_where_neighbours_differ():
    neighbours = jnp.stack([jnp.zeros((2, 3)), jnp.array([[0.0, 0.05, 0.2], [0.0, 0.0, 1.0]])])[None]
    assert manifold.varying(neighbours, least=0.1).tolist() == [[[False, False, True], [False, False, True]]]
    with pytest.raises(ValueError, match="neighbours must have the shape"):
        manifold.varying(jnp.zeros((2, 3)), least=0.1)


def test_bases_of_larger_images_are_orthonormal_and_span_the_resized_vectors():
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (2, 48, 3)))[0].swapaxes(1, 2).reshape(2, 3, 4, 4, 3)
    found = bases.resize(basis, 7)
    flat = np.asarray(found).reshape(2, 3, -1)
    np.testing.assert_allclose(flat @ flat.swapaxes(1, 2), np.eye(3)[None].repeat(2, 0), atol=1e-10)
    larger = jax.vmap(lambda v: jax.image.resize(v, (3, 7, 7, 3), "bilinear"))(basis)
    np.testing.assert_allclose(jax.vmap(bases.project, (None, 1), 1)(found, larger), larger, atol=1e-10)
    same = bases.resize(basis, 4)
    angles = bases.principal_angles(same, basis)
    np.testing.assert_allclose(angles, 0, atol=1e-7)
    with pytest.raises(ValueError, match="at least that of images"):
        bases.resize(basis, 3)
