"""Auto-PGD against a NumPy twin of algorithm 1 (Croce and Hein 2020), closed forms, and the other attacks."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax.apgd import apgd, apgd_targeted, checkpoints


def twin_checkpoints(steps):
    """ceil(p_j N) with p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), as far as p_j <= 1."""
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return sorted({math.ceil(share * steps) for share in p[1:-1]})


def twin(loss, gradient, x, start, eps, steps, *, norm, bounds):
    """Algorithm 1 for one image: every iterate, the point of largest loss, and how often the step was halved."""

    def project(z):
        if norm == "linf":
            z = x + np.clip(z - x, -eps, eps)
        elif np.linalg.norm(z - x) > eps:
            z = x + eps * (z - x) / np.linalg.norm(z - x)
        return np.clip(z, *bounds)

    def uphill(g):
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)

    points = [project(x + start)]
    points.append(project(points[0] + 2 * eps * uphill(gradient(points[0]))))
    visited = list(points)
    rises = [loss(points[1]) > loss(points[0])]
    top, eta, halvings = max(points, key=loss), 2 * eps, 0
    top_then, halved_then, last = loss(points[0]), False, 0
    for k in range(1, steps + 1):
        if k in twin_checkpoints(steps):
            first = sum(rises[last:k]) < 0.75 * (k - last)
            second = not halved_then and loss(top) == top_then
            if halved_then := first or second:
                eta, halvings = eta / 2, halvings + 1
                points[-1] = top
            top_then, last = loss(top), k
        if k == steps:
            break
        z = project(points[-1] + eta * uphill(gradient(points[-1])))
        ahead = points[-1] + 0.75 * (z - points[-1]) + 0.25 * (points[-1] - points[-2])
        points.append(project(ahead))
        visited.append(points[-1])
        rises.append(loss(points[-1]) > loss(points[-2]))
        top = points[-1] if loss(points[-1]) > loss(top) else top
    return np.array(visited), top, halvings


def test_checkpoints_are_those_of_the_paper():
    for steps in range(1, 201):
        assert checkpoints(steps) == [w for w in twin_checkpoints(steps) if w <= steps]
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


SEEN = []


def margin(w, curvature, z):
    ahead = z @ w - jnp.sum((z @ curvature) * z, axis=1) / 2
    return jnp.stack([jnp.zeros_like(ahead), ahead], axis=1)


@partial(jax.jit, static_argnames=("norm", "steps"))
def ascend(w, curvature, x, start, eps, bounds, *, norm, steps):
    """One program for each norm; every image that the model sees is noted, in the order of the steps."""

    def model(z):
        jax.debug.callback(lambda value: SEEN.append(np.array(value)), z, ordered=True)
        return margin(w, curvature, z)

    given = {f"eps_{norm}": eps, "bounds": bounds, "start": start, "steps": steps}
    return apgd(model, x, jnp.zeros(len(x), int), key=None, loss="margin", with_outcome=True, **given)


@pytest.mark.parametrize(
    ("shape", "norm", "bounds"),
    [
        ("quadratic", "l2", (0.0, 1.0)), ("quadratic", "l2", (-9.0, 9.0)), ("quadratic", "linf", (0.0, 1.0)),
        ("linear", "l2", (-9.0, 9.0)), ("linear", "linf", (-9.0, 9.0)),
    ],
)  # fmt: skip
def test_every_iterate_is_that_of_the_twin(shape, norm, bounds):
    """The margin of two classes: a narrow valley whose top lies inside some balls, or a plane."""
    rng = np.random.default_rng(0)
    n, d, eps, steps = 4, 6, 0.4, 30
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    curvature = q @ np.diag(np.geomspace(0.01, 40, d)) @ q.T if shape == "quadratic" else np.zeros((d, d))
    w, x, start = rng.normal(size=d), rng.uniform(size=(n, d)), 0.1 * rng.normal(size=(n, d))
    seen = SEEN
    seen.clear()
    found = ascend(w, curvature, x, start, eps, bounds, norm=norm, steps=steps)
    jax.effects_barrier()
    halvings = 0
    for i in range(n):
        one = twin(
            lambda z: z @ w - z @ curvature @ z / 2, lambda z: w - curvature @ z, x[i], start[i], eps, steps,
            norm=norm, bounds=bounds,
        )  # fmt: skip
        np.testing.assert_allclose(np.array(seen)[:, i], one[0], rtol=0, atol=1e-8)  # Errors grow along the valley.
        np.testing.assert_allclose(found.loss[i], one[1] @ w - one[1] @ curvature @ one[1] / 2, rtol=0, atol=1e-12)
        halvings += one[2]
    assert len(seen) == steps + 1
    assert halvings >= 4
    assert not found.no_gradient.any()
    if (shape, norm) == ("quadratic", "l2"):  # Written out, and eagerly.
        given = {"eps_l2": eps, "bounds": bounds, "start": jnp.asarray(start), "steps": steps, "unroll": True}
        model = partial(margin, jnp.asarray(w), jnp.asarray(curvature))
        written = apgd(model, jnp.asarray(x), jnp.zeros(n, int), key=None, loss="margin", **given)
        np.testing.assert_allclose(written, found.delta, rtol=0, atol=1e-8)


def test_a_linear_model_with_many_classes_meets_its_worst_case():
    """Of f = x W + b, the margin to class k falls by eps |w_k - w_y|_2: APGD-T finds the largest of all."""
    rng = np.random.default_rng(1)
    w, x = rng.normal(size=(8, 5)), rng.uniform(size=(40, 8))
    y, eps = np.argmax(x @ w, axis=1), 0.3
    gaps = x @ w - np.take_along_axis(x @ w, y[:, None], 1)
    reach = np.linalg.norm(w.T[None] - w.T[y][:, None], axis=2)
    reached = gaps + eps * reach
    reached[np.arange(40), y] = -np.inf
    found = jax.jit(lambda x, y: apgd_targeted(
        lambda z: z @ w, x, y, key=jax.random.key(0), eps_l2=eps, steps=20, with_outcome=True
    ))(x, y)  # fmt: skip
    np.testing.assert_array_equal(found.fooled, reached.max(1) > 0)
    assert 5 < found.fooled.sum() < 35


@pytest.mark.parametrize(("classes", "loss"), [(2, "margin"), (3, "margin"), (4, "dlr")])
def test_targets_of_few_classes(classes, loss):
    """Two classes have one target, which is the label's margin; three have no DLR towards a target."""
    w = jnp.asarray(np.random.default_rng(2).normal(size=(5, classes)))
    x = jnp.asarray(np.random.default_rng(3).uniform(size=(6, 5)))
    y = jnp.argmax(x @ w, axis=1)
    given = {"key": jax.random.key(1), "eps_l2": 0.4, "steps": 8}

    def both(x, y, targets):
        found = apgd_targeted(lambda z: z @ w, x, y, with_outcome=True, **given)
        return found, apgd(lambda z: z @ w, x, y, targets=targets, loss=loss, with_outcome=True, **given)

    run = both if classes == 2 else jax.jit(both)  # Eagerly too; what is compared there is of the same operations.
    found, towards = run(x, y, jnp.argsort(x @ w, axis=1)[:, -2])
    assert (found.fooled | ~towards.fooled).all()
    if classes == 2:
        np.testing.assert_array_equal(found.delta, towards.delta)
        np.testing.assert_array_equal(found.delta, apgd(lambda z: z @ w, x, y, loss="margin", **given))


def test_what_apgd_refuses():
    x, y, given = jnp.full((2, 3), 0.5), jnp.array([0, 1]), {"key": jax.random.key(0), "eps_l2": 0.1, "steps": 2}
    for options, said in (
        ({"loss": "dlr", "targets": 1 - y}, r'"dlr" needs 4 classes at least, got 3; use loss "margin"'),
        ({"targets": y + 2}, "`targets`: labels must be below 3, the number of classes, got 3"),
        ({"start": x, "restarts": 2}, "`restarts` start at random, got 2 with a `start`"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            apgd(lambda x: x, x, y, **(given | options))
    with pytest.raises(ValueError, match=r'"dlr" needs 3 classes at least, got 2; use loss "margin"'):
        apgd(lambda x: x[:, :2], x, y, loss="dlr", **given)
    with pytest.raises(ValueError, match="`classes` must be a whole number of at least 1, got 0"):
        apgd_targeted(lambda x: x, x, y, classes=0, **given)
