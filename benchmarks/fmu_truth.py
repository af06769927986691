"""The exact minimiser of an adversarial problem: by definition, in extended precision or in 50 digits.

Nothing is taken from the packages: penalties are summed pair by pair, weights row by row.
"""

from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

MATCH = {
    "equalized_odds": np.eye(2),
    "demographic_parity": np.ones((2, 2)),
    "equal_opportunity": np.diag([0.0, 1.0]),
    "individual": np.eye(2),
}
#: Digits that count, and those worked with: condition numbers go up to 1e60.
DIGITS, WORKING = 50, 130


class Form(NamedTuple):
    """What is compiled once."""

    penalty: str
    groups: int
    reweigh: bool
    d: int
    classes: int = 1


FORMS = (
    Form("equalized_odds", 2, False, 4),
    Form("equalized_odds", 3, True, 5),
    Form("demographic_parity", 2, True, 2),
    Form("demographic_parity", 3, False, 4),
    Form("equal_opportunity", 2, False, 6),
    Form("equal_opportunity", 4, True, 3),
    Form("individual", 2, False, 4),
    Form("individual", 3, True, 3),
    Form("equalized_odds", 2, True, 4, 3),
    Form("individual", 3, False, 3, 3),
)


class Truth:
    """The remaining objectives of a batch, by definition and in extended precision."""

    def __init__(self, problems: list[dict[str, np.ndarray]], form: Form):
        extended = {k: np.stack([p[k] for p in problems]).astype(np.longdouble) for k in problems[0]}
        self.x, self.y, self.w, self.noise = (extended[k] for k in ("x", "y", "w", "noise"))
        self.problems, self.form = problems, form
        self.unit = np.finfo(np.longdouble).eps / 2
        n = self.w.sum(1)
        self.ridge = n * extended["l2"]
        self.om, q, size = self.w.copy(), 0.0, 0.0
        if form.reweigh:
            for i, p in enumerate(problems):
                self.om[i] *= reweighing(p)
        for a in range(form.groups):
            for b in range(a + 1, form.groups):
                one, apart, wide = self.pairs(extended["group"], a, b)
                q, size = q + one(apart), size + one(wide)
        strength = (2 * n * extended["fairness"])[:, None, None]
        eye = self.ridge[:, None, None] * np.eye(form.d)
        # Sums of N terms twice, products, quotients: what rounding did to the penalty's matrix.
        self.a, self.a_error = strength * q + eye, (4 * self.x.shape[1] + 64) * self.unit * (strength * size + eye)

    def pairs(self, group, a, b):
        """The pair's matrix as a function of differences of rows, the differences, and the sizes of their terms."""
        i, j = (self.w * (group == g) for g in (a, b))
        inverse = 1 / (i.sum(1) * j.sum(1))[:, None, None]
        label = self.y.astype(int)
        mask = i[:, :, None] * j[:, None, :] * MATCH[self.form.penalty][label[:, :, None], label[:, None, :]]

        def matrix(apart):
            if self.form.penalty == "individual":
                terms = np.einsum("bij,bijd,bije->bide", mask, apart, apart)
                return terms.sum(1) * inverse
            c = (mask[..., None] * apart).sum(2).sum(1) * inverse[:, 0]
            return c[:, :, None] * c[:, None, :]

        size = np.abs(self.x)
        return matrix, self.x[:, :, None] - self.x[:, None], size[:, :, None] + size[:, None]

    def parts(self, t):
        """Scores, tails ``exp(-|score|)``, probabilities."""
        f = np.einsum("bnd,bd->bn", self.x, t)
        e = np.exp(-np.abs(f))
        return f, e, np.where(f > 0, 1 / (1 + e), e / (1 + e))

    def gradient(self, t):
        """The gradient, and a bound on its rounding error."""
        _, _, p = self.parts(t)
        score = (self.form.d + 2) * self.unit * np.einsum("bnd,bd->bn", np.abs(self.x), np.abs(t))
        row = self.om * (p - self.y)
        grad = np.einsum("bnd,bn->bd", self.x, row) + np.einsum("bde,be->bd", self.a, t) + self.noise
        off = self.om * (score / 4 + 16 * self.unit) + (self.x.shape[1] + 16) * self.unit * np.abs(row)
        error = np.einsum("bnd,bn->bd", np.abs(self.x), off) + np.einsum("bde,be->bd", self.a_error, np.abs(t))
        return grad, norm(error + 16 * self.unit * (np.abs(self.noise) + np.einsum("bde,be->bd", abs(self.a), abs(t))))

    def solve(self):
        """The optima, ``(b, d)``, and how far each can be off by strong convexity, ``(b,)``."""
        t = np.zeros((len(self.x), self.form.d), np.longdouble)
        best, least = t, np.full(len(t), np.inf, np.longdouble)
        for _ in range(150):
            grad, error = self.gradient(t)
            better = norm(grad) + error < least
            best, least = np.where(better[:, None], t, best), np.where(better, norm(grad) + error, least)
            _, e, _ = self.parts(t)
            curved = self.om * e / (1 + e) ** 2
            step = solve(np.einsum("bnd,bn,bne->bde", self.x, curved, self.x) + self.a, grad)
            step = np.where(np.isfinite(step).all(1)[:, None], step, 0)
            t = t - self.length(t, step, (grad * step).sum(1))[:, None] * step
        return best, least / self.ridge

    def length(self, t, step, slope):
        """How far to go: all the way, or, where the slope is not small there, to the least value by bisection."""

        def along(size):
            return (self.gradient(t - size[:, None] * step)[0] * step).sum(1)

        low, high = np.zeros(len(t), np.longdouble), np.ones(len(t), np.longdouble)
        full = np.abs(along(high)) <= 0.1 * np.abs(slope)
        if not full.all():
            for _ in range(30):
                middle = (low + high) / 2
                falling = along(middle) > 0
                low, high = np.where(falling, middle, low), np.where(falling, high, middle)
        return np.where(full, 1, (low + high) / 2)


def reweighing(p: dict[str, np.ndarray]) -> np.ndarray:
    """Kamiran and Calders' row weights, row by row."""
    remains = p["w"] > 0
    number = [
        (
            int((remains & (p["group"] == g)).sum()) * int((remains & (p["y"] == y)).sum()),
            remains & (p["group"] == g) & (p["y"] == y),
        )
        for g, y in zip(p["group"], p["y"], strict=True)
    ]
    return np.array([np.longdouble(many) / (int(remains.sum()) * max(int(same.sum()), 1)) for many, same in number])


def norm(v):
    """Of every vector."""
    return np.sqrt((v * v).sum(-1))


def solve(matrix, b):
    """Gaussian elimination of scaled positive definite matrices, in the dtype at hand."""
    d = matrix.shape[-1]
    scale = 1 / np.sqrt(np.einsum("bii->bi", matrix))
    m, v = matrix * scale[:, :, None] * scale[:, None], b * scale
    for k in range(d):
        factor = m[:, k + 1 :, k] / m[:, k, k, None]
        m[:, k + 1 :] -= factor[:, :, None] * m[:, k, None]
        v[:, k + 1 :] -= factor * v[:, k, None]
    found = np.zeros_like(v)
    for k in reversed(range(d)):
        found[:, k] = (v[:, k] - (m[:, k, k + 1 :] * found[:, k + 1 :]).sum(1)) / m[:, k, k]
    return found * scale


def exact(number) -> Any:
    """Numbers of any width as mpmath's, exactly."""
    high = np.asarray(number, np.float64)
    low = np.asarray(np.asarray(number, np.longdouble) - high, np.float64)
    return np.vectorize(lambda a, b: mp.mpf(float(a)) + mp.mpf(float(b)), otypes=[object])(high, low)


def exact_optimum(p: dict[str, np.ndarray], form: Form, start: np.ndarray) -> np.ndarray | None:
    """The optimum to 50 digits, by Newton's method from a nearby point; None where that does not end."""
    remains = p["w"] > 0
    x, y, g, n = exact(p["x"][remains]), p["y"][remains], p["group"][remains], int(remains.sum())
    om = np.array([mp.mpf(1)] * n)
    if form.reweigh:
        for i in range(n):
            same = int(((g == g[i]) & (y == y[i])).sum())
            om[i] = mp.mpf(int((g == g[i]).sum()) * int((y == y[i]).sum())) / (n * same)
    ridge = n * mp.mpf(float(p["l2"]))
    a = np.diag([ridge] * form.d)
    for k in range(form.groups):
        for other in range(k + 1, form.groups):
            i, j = np.flatnonzero(g == k), np.flatnonzero(g == other)
            match = MATCH[form.penalty][np.ix_(y[i], y[j])].ravel()
            apart = (x[i][:, None] - x[j][None]).reshape(-1, form.d)[match > 0]
            pairwise = form.penalty == "individual"
            total = apart.T @ apart if pairwise else np.outer(*2 * [apart.sum(axis=0)])
            a = a + 2 * n * mp.mpf(float(p["fairness"])) * total / mp.mpf(len(i) * len(j)) ** (1 if pairwise else 2)
    noise, t = exact(p["noise"]), exact(start)

    def gradient(t):
        f = x @ t
        e = np.array([mp.exp(-abs(v)) for v in f])
        return x.T @ (om * (np.where(f > 0, 1, e) / (1 + e) - y)) + a @ t + noise, e

    for _ in range(150):
        grad, e = gradient(t)
        # By strong convexity.
        if mp.sqrt(grad @ grad) <= ridge * mp.mpf(10) ** -DIGITS * mp.sqrt(t @ t):
            return t
        hessian = (x * (om * e / (1 + e) ** 2)[:, None]).T @ x + a
        step = np.array(list(mp.lu_solve(mp.matrix(hessian.tolist()), mp.matrix(list(grad)))))
        low, high = mp.mpf(0), mp.mpf(1)
        if abs(gradient(t - step)[0] @ step) > abs(grad @ step) / 10:
            for _ in range(20):
                middle = (low + high) / 2
                low, high = (middle, high) if gradient(t - middle * step)[0] @ step > 0 else (low, middle)
        t = t - high * step
    return None
