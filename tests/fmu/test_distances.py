"""No certified distance is below the true one: adversarial rows, both dtypes.

Truth: for float32 problems a float64 optimum whose own error is bounded; for float64 problems, and where float64 is not
enough, mpmath at 50 digits. Everything is written from the definition of the objective, pair by pair.
"""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from fmu_jax import Data, Objective, distances
from fmu_jax.curvature import hessian_with_error, inverse_root
from fmu_jax.removal import Removal
from tests.placing import put

N, D = 24, 4
KINDS = ("plain", "collinear", "duplicate", "rows", "mixed", "outlier", "cells")
#: penalty, groups, reweigh
FORMS = (("equalized_odds", 2, False), ("demographic_parity", 3, True), ("individual", 2, False))
MATCH = {"equalized_odds": np.eye(2), "demographic_parity": np.ones((2, 2)), "individual": np.eye(2)}


def draw(rng, groups, dtype):
    """One adversarial problem: rows, labels, groups, l2, fairness, noise; and where the parameters stand."""
    kind, scale = rng.choice(KINDS), 10.0 ** rng.choice([-6, -3, 0, 0, 0, 1, 2, 3, 5])
    x = rng.normal(size=(N, D))
    x[:, -1] = 1
    if kind == "collinear":
        x[:, 1] = x[:, 0] * (1 + 1e-9 * rng.normal(size=N))
    if kind == "duplicate":
        x[:, 1] = x[:, 0]
    if kind == "rows":
        x[N // 2 :] = x[: N // 2]
    if kind == "mixed":
        x[:, 0], x[:, 1] = 1e-5 * x[:, 0], 1e3 * x[:, 1]
    if kind == "outlier":
        x[0] *= 1e3
    group, y = np.arange(N) % groups, (rng.random(N) < 0.5).astype(np.int32)
    if kind == "cells":
        group = np.minimum(np.maximum(np.arange(N) // 2 - (N // 2 - groups), 0), groups - 1)
    for g in range(groups):
        first, second = np.flatnonzero(group == g)[:2]
        y[first], y[second] = 0, 1
    l2, fairness = 10 ** rng.uniform(-8, 1), rng.choice([0, 1, 100, 1e4])
    noise, weight = rng.choice([0, 0.01, 1]) * rng.normal(size=D), np.ones(N)
    weight[2 * groups : 2 * groups + rng.integers(0, 4)] = 0
    if kind == "cells":
        weight[:] = 1
    numbers = [np.asarray(v, dtype) for v in (x * scale, weight, l2, fairness, noise)]
    return {"x": numbers[0], "w": numbers[1], "l2": numbers[2], "fairness": numbers[3], "noise": numbers[4], "y": y,
            "group": group.astype(np.int32)}  # fmt: skip


class Truth:
    """The remaining objective by definition, in float64 or, with ``exact``, in mpmath."""

    def __init__(self, p, form, exact=False):
        penalty, groups, reweigh = form
        keep = p["w"] > 0
        number = (
            (lambda a: np.vectorize(lambda v: mp.mpf(float(v)), otypes=[object])(a))
            if exact
            else (lambda a: np.asarray(a, np.float64))
        )
        self.exact, self.x, self.y = exact, number(p["x"][keep]), p["y"][keep]
        self.noise, one = number(p["noise"]), mp.mpf(1) if exact else 1.0
        g, n = p["group"][keep], int(keep.sum())
        self.om = np.full(n, one)
        if reweigh:
            for i in range(n):
                same = int(((g == g[i]) & (self.y == self.y[i])).sum())
                self.om[i] = one * int((g == g[i]).sum()) * int((self.y == self.y[i]).sum()) / (n * same)
        q = np.zeros((D, D)) * one
        for a in range(groups):
            for b in range(a + 1, groups):
                i, j = np.flatnonzero(g == a), np.flatnonzero(g == b)
                match = MATCH[penalty][np.ix_(self.y[i], self.y[j])].ravel()
                apart = (self.x[i][:, None] - self.x[j][None]).reshape(-1, D)[match > 0]
                total = apart.T @ apart if penalty == "individual" else np.outer(*2 * [apart.sum(axis=0)])
                q = q + total / (one * len(i) * len(j)) ** (1 if penalty == "individual" else 2)
        l2, fairness = (mp.mpf(float(p[k])) if exact else float(p[k]) for k in ("l2", "fairness"))
        self.ridge = n * l2
        self.a = n * (l2 * np.eye(D) * one + 2 * fairness * q)

    def prob(self, f):
        """sigmoid and its derivative."""
        if self.exact:
            e = np.array([mp.exp(-abs(v)) for v in f])
        else:
            e = np.exp(-np.abs(f))
        return np.where(f > 0, 1 / (1 + e), e / (1 + e)), e / (1 + e) ** 2

    def value(self, t):
        f = self.x @ t
        soft = np.array([mp.log1p(mp.exp(-abs(v))) for v in f]) if self.exact else np.log1p(np.exp(-np.abs(f)))
        return self.om @ (soft + np.maximum(f, 0) - self.y * f) + t @ self.a @ t / 2 + self.noise @ t

    def grad(self, t):
        return self.x.T @ (self.om * (self.prob(self.x @ t)[0] - self.y)) + self.a @ t + self.noise

    def hess(self, t):
        return (self.x * (self.om * self.prob(self.x @ t)[1])[:, None]).T @ self.x + self.a

    def direction(self, t):
        if not self.exact:
            h = self.hess(t)
            s = 1 / np.sqrt(np.diag(h))
            return s * np.linalg.lstsq(h * s[:, None] * s, s * self.grad(t), rcond=None)[0]
        return np.array(list(mp.lu_solve(mp.matrix(self.hess(t).tolist()), mp.matrix(list(self.grad(t))))))

    def solve(self, t):
        for _ in range(80):
            step, value = self.direction(t), self.value(t)
            size = 1.0
            while size > 1e-6 and not self.value(t - size * step) <= value:
                size /= 2
            t = t - size * step
            if max(abs(v) for v in step) <= (mp.mpf(10) ** -35 if self.exact else 1e-14) * max(abs(v) for v in t):
                break
        return t


def norm(v):
    return mp.sqrt(sum(mp.mpf(a) ** 2 for a in v))


@partial(jax.jit, static_argnums=0)
def regions(form, batch, params):
    """Region, local distance, prediction margins of the rows, for a batch of problems."""
    penalty, groups, reweigh = form

    def one(p, t):
        objective = Objective(l2=p["l2"], fairness=p["fairness"], penalty=penalty, reweigh=reweigh)
        data = Data(p["x"], p["y"], p["group"], p["w"], groups)
        removal = Removal(t, data, None, t, None, None, None)
        region = distances._region(objective, removal, p["noise"])
        # What both worlds share: the Gram matrix of what remains, and the ridge.
        shape = (p["x"] * p["w"][:, None]).T @ p["x"] / 4 + N * p["l2"] * jnp.eye(D, dtype=t.dtype)
        shaped = shape, distances.shaped_distance(region, shape)
        return region, distances.local_distance(region), distances.prediction_margins(region, p["x"]), shaped

    return jax.vmap(one)(batch, params)


#: Every run has a quick share; the weekly one has all forms, 360 problems each in either dtype.
WEEKLY = [pytest.param(form, 360, marks=pytest.mark.weekly) for form in FORMS]


def problems(form, dtype, seed, count):
    """Problems, their float64 optima, and unconverged parameters around them."""
    rng = np.random.default_rng(seed)
    found, starts, optima = [], [], []
    while len(found) < count:
        p = draw(rng, form[1], dtype)
        optimum = Truth(p, form).solve(np.zeros(D))
        if not np.isfinite(optimum).all() or np.abs(optimum).max() > 1e30:
            continue
        off = 10 ** rng.uniform(-9, 0) * rng.normal(size=D)
        start = optimum * (1 + off) if rng.random() < 0.7 else optimum + off
        found.append(p)
        optima.append(optimum)
        starts.append((start if rng.random() < 0.95 else rng.normal(size=D)).astype(dtype))
    batch = {key: put(np.stack([p[key] for p in found])) for key in found[0]}
    return found, batch, np.stack(starts), np.stack(optima)


@pytest.mark.parametrize(("form", "count"), [(FORMS[0], 48), (FORMS[2], 48), *WEEKLY])
def test_in_float32_no_bound_is_below_the_float64_truth(form, count):
    """Problems whose float64 truth is not good to a thousandth of the distance do not count."""
    found, batch, params, optima = problems(form, np.float32, count, count)
    region, local, margins, (shape, shaped) = jax.tree.map(np.asarray, regions(form, batch, params))
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves((region, local, margins, shaped)))
    counted = finite = 0
    for i, p in enumerate(found):
        truth, gap = Truth(p, form), params[i].astype(np.float64) - optima[i]
        # |grad| is rounded itself: a few units of the size of its terms.
        terms = np.abs(truth.x).T @ np.ones(len(truth.x)) + np.abs(truth.a) @ np.abs(optima[i]) + np.abs(truth.noise)
        wrong = (np.linalg.norm(truth.grad(optima[i])) + 1e-14 * np.linalg.norm(terms)) / float(truth.ridge)
        if wrong > 1e-3 * np.linalg.norm(gap):
            continue
        counted, finite = counted + 1, finite + np.isfinite(local[i])
        assert np.sqrt(gap @ shape[i].astype(np.float64) @ gap) <= shaped[i] * (1 + 2e-3) + 2e-3 * wrong
        assert np.linalg.norm(gap) <= min(local[i], region.distance[i]) * (1 + 2e-3), (i, p)
        assert (
            np.abs(truth.x @ gap) <= margins[i][p["w"] > 0] * (1 + 2e-3) + np.linalg.norm(truth.x, axis=1) * wrong
        ).all()
    assert counted > count / 3
    assert finite > count / 10


@pytest.mark.parametrize(("form", "count"), [pytest.param(FORMS[1], 24, marks=pytest.mark.slow), *WEEKLY])
def test_in_float64_no_bound_is_below_the_truth_of_fifty_digits(form, count):
    found, batch, params, optima = problems(form, np.float64, count, count)
    region, local, margins, (shape, shaped) = jax.tree.map(np.asarray, regions(form, batch, params))
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves((region, local, margins, shaped)))
    assert np.isfinite(local).sum() > count / 4
    # Where rounding matters most: the nearest to the optimum, and the worst conditioned.
    order = np.argsort(local / region.distance + np.where(np.isfinite(local), 0, 1e9))
    chosen = [*order[: max(3, count // 36)], *order[:: count // 4][:4]]
    with mp.workdps(50):
        for i in chosen:
            truth = Truth(found[i], form, exact=True)
            start = np.vectorize(lambda v: mp.mpf(float(v)), otypes=[object])(params[i])
            gap = start - truth.solve(np.vectorize(lambda v: mp.mpf(float(v)), otypes=[object])(optima[i]))
            assert norm(gap) <= min(mp.mpf(local[i]), mp.mpf(region.distance[i])), i
            assert mp.sqrt(gap @ np.vectorize(mp.mpf, otypes=[object])(shape[i]) @ gap) <= mp.mpf(shaped[i])
            assert norm(truth.grad(start)) <= mp.mpf(region.residual_norm[i])
            h, dual = truth.hess(start), region.dual[i]
            for v in (*np.eye(D), truth.x[0]):
                v = np.vectorize(mp.mpf, otypes=[object])(v)
                size = mp.sqrt(v @ np.array(list(mp.lu_solve(mp.matrix(h.tolist()), mp.matrix(list(v))))))
                assert size <= norm(np.vectorize(mp.mpf, otypes=[object])(dual) @ v)
            if np.isfinite(region.radius[i]):
                assert mp.sqrt(gap @ h @ gap) <= mp.mpf(region.radius[i])


def test_a_singular_hessian_gives_the_ridge_and_no_nan():
    """Exactly duplicated columns, unscaled, with hardly a ridge: the factor is not trusted, the ridge is."""
    rng = np.random.default_rng(0)
    p = draw(rng, 2, np.float64)
    x = np.repeat(1e6 * rng.normal(size=(N, 1)), D, axis=1)
    data = Data(*map(put, (x, p["y"], p["group"], np.ones(N))), 2)

    @jax.jit
    def root(objective, ridge):
        return inverse_root(hessian_with_error(objective, jnp.zeros(D), data), ridge)

    for l2, least in ((1e-8, 1 / np.sqrt(N * 1e-8)), (0.0, np.inf)):
        dual = np.asarray(root(Objective(l2=l2, fairness=1e4), put(N * l2)))
        np.testing.assert_allclose(np.diag(dual), least, rtol=1e-12)
        assert (dual == np.diag(np.diag(dual))).all()
