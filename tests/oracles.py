"""Slow, plain float64 NumPy/SciPy oracles for the fair-unlearning tests, written from the mathematics alone.

Glossary: x (n, d) features with the bias column included; y (n,) label in {0, 1}; s (n,) group in {0, 1, ...};
w (n,) weight in {0, 1}, 0 for a removed row; f = x theta; p = sigma(f); n_w = sum w; n_a, n_b = rows of groups a < b
with w = 1; R = the sum over all pairs a < b of the penalty of that pair alone;
om = w (times the reweighing weight); l2 = lambda; fairness = gamma; removed = boolean mask (n,).

    F(theta; w) = sum_i om_i l(theta; x_i, y_i) + n_w (lambda/2) ||theta||^2 + n_w gamma R(theta; w) + noise.theta

Arguments are NumPy arrays. `fast=True` replaces the loops over pairs by sums over cells (group, label).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import norm

PENALTIES = ("equalized_odds", "demographic_parity", "equal_opportunity", "individual")
LIPSCHITZ = 1.0 / (6.0 * np.sqrt(3.0))  # the largest |sigma''|; compare `max_sigma_second`


# ----------------------------------------------------------------------------------------------- penalties
def _match(name, y_i, y_j):
    """1[match] of one pair: y_i = y_j; always; y_i = y_j = 1; y_i = y_j."""
    if name not in PENALTIES:
        raise ValueError(f"penalty {name!r} is not one of {PENALTIES}")
    if name == "demographic_parity":
        return True
    if name == "equal_opportunity":
        return y_i == 1 and y_j == 1
    return y_i == y_j


def group_pairs(s):
    """All pairs a < b of groups, by two loops."""
    groups = max(2, int(np.max(s)) + 1)
    return [(a, b) for a in range(groups) for b in range(a + 1, groups)]


def _groups(s, w, pair):
    """Indices of the remaining rows of the pair's two groups; R is undefined when either is empty."""
    a, b = ([i for i in range(len(s)) if w[i] == 1 and s[i] == group] for group in pair)
    if not a or not b:
        raise ValueError(f"a group is empty: n_a={len(a)}, n_b={len(b)}")
    return a, b


def penalty_from_scores(name, f, y, s, w):
    """R of scores f, the sum of `pair_penalty` over all pairs of groups."""
    return sum(pair_penalty(name, f, y, s, w, pair) for pair in group_pairs(s))


def pair_penalty(name, f, y, s, w, pair):
    """(1/(n_a n_b) sum_ij 1[match](f_i - f_j))^2 of two groups; `individual`: mean of squares (Berk et al. 2017)."""
    a, b = _groups(s, w, pair)
    total = 0.0
    for i in a:
        for j in b:
            if _match(name, y[i], y[j]):
                difference = float(f[i]) - float(f[j])
                total += difference**2 if name == "individual" else difference
    mean = total / (len(a) * len(b))
    return mean if name == "individual" else mean**2


def penalty(name, theta, x, y, s, w):
    """R(theta; w) of the linear scores f = x theta (Berk et al. 2017; double loop over the pairs)."""
    return penalty_from_scores(name, np.asarray(x, np.float64) @ np.asarray(theta, np.float64), y, s, w)


def penalty_matrix(name, x, y, s, w, fast=False):
    """Q with R = theta' Q theta: the sum of Q_ab over all pairs of groups a < b.

    Q_ab = c c' with c = mean over pairs of rows of 1[match](x_i - x_j), or the mean of outer products.
    `fast`: with cell sums S_gy, counts N_gy and moments M_gy = sum x x' (plain boolean masks), c = sum over matched
    labels (y, z) of (N_bz S_ay - N_ay S_bz)/(n_a n_b), and for `individual`
    Q = sum_y (N_by M_ay + N_ay M_by - S_ay S_by' - S_by S_ay')/(n_a n_b).
    """
    x = np.asarray(x, np.float64)
    if fast:
        y, s, w = np.asarray(y), np.asarray(s), np.asarray(w)
        return sum(_penalty_matrix_cells(name, x, y, s, w, pair) for pair in group_pairs(s))
    return sum(_penalty_matrix_rows(name, x, y, s, w, pair) for pair in group_pairs(s))


def _penalty_matrix_rows(name, x, y, s, w, pair):
    """Q_ab by two loops over the rows of two groups."""
    d = x.shape[1]
    a, b = _groups(s, w, pair)
    c, q = np.zeros(d), np.zeros((d, d))
    for i in a:
        for j in b:
            if _match(name, y[i], y[j]):
                v = x[i] - x[j]
                c += v
                q += np.outer(v, v)
    pairs = len(a) * len(b)
    return q / pairs if name == "individual" else np.outer(c / pairs, c / pairs)


def _penalty_matrix_cells(name, x, y, s, w, pair):
    """Q_ab through the four cells (group, label) of the remaining rows of two groups."""
    cell = {(k, t): x[(w == 1) & (s == g) & (y == t)] for k, g in enumerate(pair) for t in (0, 1)}
    n_a, n_b = (float(len(cell[g, 0]) + len(cell[g, 1])) for g in (0, 1))
    if n_a == 0 or n_b == 0:
        raise ValueError(f"a group is empty: n_a={n_a}, n_b={n_b}")
    c, q = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    for t, u in itertools.product((0, 1), (0, 1)):
        if _match(name, t, u):
            rows_a, rows_b = cell[0, t], cell[1, u]
            sum_a, sum_b = rows_a.sum(axis=0), rows_b.sum(axis=0)
            c += len(rows_b) * sum_a - len(rows_a) * sum_b
            q += len(rows_b) * rows_a.T @ rows_a + len(rows_a) * rows_b.T @ rows_b
            q -= np.outer(sum_a, sum_b) + np.outer(sum_b, sum_a)
    return q / (n_a * n_b) if name == "individual" else np.outer(c, c) / (n_a * n_b) ** 2


def reweighing_weights(y, s, w):
    """N_g N_y / (n_w N_gy) of the weighted counts, one per row, removed rows included (Kamiran & Calders 2012).

    A removed row whose cell has no remaining row gets 0. Multiply by w for the loss weight om.
    """
    y, s, w = np.asarray(y), np.asarray(s), np.asarray(w, np.float64)
    weights = np.zeros(len(y))
    for g, t in itertools.product(range(max(2, int(s.max()) + 1)), (0, 1)):
        cell = (s == g) & (y == t)
        if w[cell].sum() > 0:
            weights[cell] = w[s == g].sum() * w[y == t].sum() / (w.sum() * w[cell].sum())
    return weights


def loss_weights(y, s, w, reweigh=False):
    """om = w, times the reweighing weights of what remains if `reweigh`."""
    w = np.asarray(w, np.float64)
    return w * reweighing_weights(y, s, w) if reweigh else w


# ----------------------------------------------------------------------------------------------- objective
def objective(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """F in sum form (module docstring); l = log(1 + e^f) - y f through logaddexp, so it is stable for large |f|."""
    theta, x, y = (np.asarray(v, np.float64) for v in (theta, x, y))
    f, n_w = x @ theta, float(np.sum(w))
    value = float(np.sum(loss_weights(y, s, w, reweigh) * (np.logaddexp(0.0, f) - y * f)))
    value += n_w * l2 / 2 * float(theta @ theta)
    if fairness != 0:
        q = penalty_matrix(penalty, x, y, s, w, fast=True) if fast else None
        value += n_w * fairness * float(penalty_from_scores(penalty, f, y, s, w) if q is None else theta @ q @ theta)
    return value if noise is None else value + float(np.asarray(noise, np.float64) @ theta)


def gradient(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """grad F = sum om_i (p_i - y_i) x_i + n_w lambda theta + 2 n_w gamma Q theta + noise."""
    theta, x, y = (np.asarray(v, np.float64) for v in (theta, x, y))
    n_w = float(np.sum(w))
    value = x.T @ (loss_weights(y, s, w, reweigh) * (expit(x @ theta) - y)) + n_w * l2 * theta
    if fairness != 0:
        value = value + 2 * n_w * fairness * penalty_matrix(penalty, x, y, s, w, fast) @ theta
    return value if noise is None else value + np.asarray(noise, np.float64)


def gradient_fd(theta, *problem, step=1e-5, **options):
    """(F(theta + h e_k) - F(theta - h e_k)) / 2h: central differences of `objective` (same arguments)."""
    theta = np.asarray(theta, np.float64)
    basis = step * np.eye(len(theta))
    values = [objective(theta + e, *problem, **options) - objective(theta - e, *problem, **options) for e in basis]
    return np.array(values) / (2 * step)


def hessian(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """H = sum om_i p_i (1 - p_i) x_i x_i' + n_w lambda I + 2 n_w gamma Q; the noise term is linear and drops out."""
    theta, x = np.asarray(theta, np.float64), np.asarray(x, np.float64)
    f, n_w = x @ theta, float(np.sum(w))
    curvature = loss_weights(y, s, w, reweigh) * expit(f) * expit(-f)
    value = x.T @ (curvature[:, None] * x) + n_w * l2 * np.eye(len(theta))
    return value if fairness == 0 else value + 2 * n_w * fairness * penalty_matrix(penalty, x, y, s, w, fast)


def minimise(x, y, s, w, l2, fairness=0.0, penalty="equalized_odds", noise=None, reweigh=False, start=None, tol=1e-12):
    """argmin F: scipy's trust-exact, then Newton steps until ||grad F|| <= tol n_w (cell sums: n = 40,000 is fine)."""
    if not (l2 > 0 and np.sum(w) > 0):
        raise ValueError(f"strong convexity needs l2 > 0 and a remaining row, not l2={l2}, n_w={np.sum(w)}")
    problem = (x, y, s, w, l2, fairness, penalty, noise, reweigh, True)
    theta = np.zeros(x.shape[1]) if start is None else np.asarray(start, np.float64)
    options = {"gtol": 1e-6 * float(np.sum(w)), "maxiter": 1000}
    theta = minimize(objective, theta, problem, "trust-exact", jac=gradient, hess=hessian, options=options).x
    for _ in range(50):
        g = gradient(theta, *problem)
        if np.linalg.norm(g) <= tol * np.sum(w):
            return theta
        theta = theta - np.linalg.solve(hessian(theta, *problem), g)
    raise RuntimeError(f"gradient norm {np.linalg.norm(g):.3e} stays above {tol * np.sum(w):.3e}")


# ----------------------------------------------------------------------------------------- removal methods
def newton_step_fair(theta, x, y, s, w_remaining, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """theta - H'(theta)^-1 grad F'(theta), F' the fair objective of what remains (the paper's fair removal)."""
    problem = (x, y, s, w_remaining, l2, fairness, penalty, noise, reweigh, fast)
    return theta - np.linalg.solve(hessian(theta, *problem), gradient(theta, *problem))


def newton_step_guo(theta, x, y, removed, w_before, l2):
    """theta + H_-^-1 sum_{removed} ((p_i - y_i) x_i + lambda theta), plain loss (Guo et al. 2020, section 3).

    H_- = sum_{remaining} p_i (1 - p_i) x_i x_i' + n_remaining lambda I; the gradient at the start is taken to be 0.
    """
    hess, delta = np.zeros((len(theta), len(theta))), np.zeros(len(theta))
    for i in range(len(y)):
        p = expit(x[i] @ theta)
        if w_before[i] == 1 and removed[i]:
            delta += (p - y[i]) * x[i] + l2 * theta
        elif w_before[i] == 1:
            hess += p * (1 - p) * np.outer(x[i], x[i]) + l2 * np.eye(len(theta))
    return theta + np.linalg.solve(hess, delta)


def influence_step(theta, x, y, s, w_before, w_remaining, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """theta - H(theta; w_before)^-1 grad F(theta; w_remaining): first order, Hessian of all rows (Koh & Liang 2017)."""
    tail = (l2, fairness, penalty, noise, reweigh, fast)
    h, g = hessian(theta, x, y, s, w_before, *tail), gradient(theta, x, y, s, w_remaining, *tail)
    return theta - np.linalg.solve(h, g)


def leave_k_out(theta, x, y, removed, l2, w_before=None):
    """Leave-k-out predictions of the removed rows in the IRLS ridge problem at theta (Izzo et al. 2021).

    W = w p (1 - p), z = x theta + (y - p)/(p (1 - p)), H = X (X'WX + n lambda I)^-1 X'W, n by n over all rows. The
    residuals e_i = z_i - x_i.theta become (I - H_kk)^-1 e_k without the k rows, so the predictions are
    z_k - (I - H_kk)^-1 e_k (exact if theta is the plain optimum: it is then the ridge fit of z). The ridge keeps n,
    the rows before the removal. `removed` rows that had w = 0 already are left out.
    """
    w_before = np.ones(len(y)) if w_before is None else np.asarray(w_before, np.float64)
    f = x @ theta
    curvature = expit(f) * expit(-f)
    z = f + (y - expit(f)) / curvature
    weight = w_before * curvature
    gram = x.T @ (weight[:, None] * x) + w_before.sum() * l2 * np.eye(len(theta))
    hat = x @ np.linalg.solve(gram, x.T * weight)
    k = np.flatnonzero(np.asarray(removed) & (w_before == 1))
    return z[k] - np.linalg.solve(np.eye(len(k)) - hat[np.ix_(k, k)], z[k] - f[k])


def projective_literal(theta, x, y, removed, l2, w_before=None):
    """theta + X_k^+ (leave-k-out predictions - X_k theta): the projective residual update (Izzo et al. 2021)."""
    k = np.flatnonzero(removed if w_before is None else np.asarray(removed) & (np.asarray(w_before) == 1))
    return theta + np.linalg.pinv(x[k]) @ (leave_k_out(theta, x, y, removed, l2, w_before) - x[k] @ theta)


def sharded_literal(x, y, shard, w, l2):
    """(shards, d): per shard the minimiser of the plain objective of its remaining rows (Bourtoule et al. 2021).

    shard (n,) holds codes 0..S-1; the ridge of a shard is n_shard lambda; a shard without a remaining row gives zeros.
    """
    thetas = np.zeros((int(np.max(shard)) + 1, x.shape[1]))
    for code in range(len(thetas)):
        rows = [i for i in range(len(y)) if shard[i] == code and w[i] == 1]
        if rows:
            thetas[code] = minimise(x[rows], y[rows], np.zeros(len(rows)), np.ones(len(rows)), l2)
    return thetas


def sharded_scores(thetas, x, how):
    """Per row: `vote` = share of shards with a positive score, `mean` = mean score (Bourtoule et al. 2021)."""
    if how not in ("vote", "mean"):
        raise ValueError(f"how={how!r} is neither 'vote' nor 'mean'")
    return np.array([np.mean([float(t @ row > 0) if how == "vote" else t @ row for t in thetas]) for row in x])


def descent_literal(theta, x, y, s, w, l2, fairness, penalty, steps, step_size, noise=None, reweigh=False, fast=False):
    """`steps` times theta <- theta - step_size grad F'(theta), sum form, nothing published (Neel et al. 2021)."""
    for _ in range(steps):
        theta = theta - step_size * gradient(theta, x, y, s, w, l2, fairness, penalty, noise, reweigh, fast)
    return theta


# --------------------------------------------------------------------------------------------- certificates
def max_sigma_second():
    """max |sigma''| by scalar search, sigma'' = sigma (1 - sigma)(1 - 2 sigma); in closed form 1/(6 sqrt 3)."""
    found = minimize_scalar(
        lambda t: -abs(expit(t) * expit(-t) * (1 - 2 * expit(t))), bounds=(0.0, 6.0), method="bounded"
    )
    return -float(found.fun)


def residual_norm(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """r = ||grad F'(theta)||_2 on the rows with w = 1, noise included."""
    return float(np.linalg.norm(gradient(theta, x, y, s, w, l2, fairness, penalty, noise, reweigh, fast)))


def row_bound(theta_start, theta_new, x, om):
    """The smaller of `gram_bound` and (L/2) ||sqrt(om) X||_2 ||sqrt(om) (X D)^2||_2, D = theta_new - theta_start.

    Taylor: the residual is sum om_i x_i sigma''(xi_i) (x_i.D)^2 / 2, and |sigma''| <= L (the row-wise bound).
    """
    root = np.sqrt(np.asarray(om, np.float64))
    squares = (x @ (theta_new - theta_start)) ** 2
    spectral = LIPSCHITZ / 2 * np.linalg.norm(root[:, None] * x, 2) * np.linalg.norm(root * squares)
    return float(min(spectral, gram_bound(theta_start, theta_new, x, om)))


def gram_bound(theta_start, theta_new, x, om):
    """(L/2) sum_i om_i ||x_i|| (x_i.D)^2, a row at a time (triangle inequality on the Taylor remainder)."""
    d = theta_new - theta_start
    return float(LIPSCHITZ / 2 * sum(om[i] * np.linalg.norm(x[i]) * (x[i] @ d) ** 2 for i in range(len(om))))


def paper_data_dependent(theta_start, theta_new, x, om):
    """0.25 ||X_w||_2 ||D||_2 ||X_w D||_2, X_w = sqrt(om) X (the original code's data-dependent bound)."""
    d, x_w = theta_new - theta_start, np.sqrt(np.asarray(om, np.float64))[:, None] * x
    return float(0.25 * np.linalg.norm(x_w, 2) * np.linalg.norm(d) * np.linalg.norm(x_w @ d))


def paper_worst_case(theta, l2, n, n_b):
    """0.25/(lambda^2 (n - 1)) (2 + ||theta|| (8 (n - 1)/n_b^2)^2) (the paper's Theorem 1, one removed row)."""
    return float(0.25 / (l2**2 * (n - 1)) * (2 + np.linalg.norm(theta) * (8 * (n - 1) / n_b**2) ** 2))


def epsilon_from(r, sigma, delta):
    """epsilon = (r/sigma) sqrt(2 ln(1.5/delta)) (Guo et al. 2020, Theorem 3)."""
    return r / sigma * np.sqrt(2 * np.log(1.5 / delta))


def gaussian_delta(epsilon, mu):
    """delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu), mu = r/sigma (Balle & Wang 2018, Theorem 8), in logs."""
    if mu == 0:
        return 0.0
    first, second = norm.logcdf(mu / 2 - epsilon / mu), epsilon + norm.logcdf(-mu / 2 - epsilon / mu)
    return float(-np.exp(first) * np.expm1(second - first))


def gaussian_epsilon(delta, mu):
    """The least epsilon >= 0 with gaussian_delta(epsilon, mu) <= delta, by brentq (Balle & Wang 2018)."""
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    upper = 1.0
    while gaussian_delta(upper, mu) > delta:
        upper *= 2
    return float(brentq(lambda e: gaussian_delta(e, mu) - delta, 0.0, upper, xtol=1e-14, rtol=1e-14))


def global_margins(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """kappa ||x_i|| per row, kappa = r/(n_w lambda) >= ||theta - theta'|| by strong convexity (l2 alone)."""
    r = residual_norm(theta, x, y, s, w, l2, fairness, penalty, noise, reweigh, fast)
    return r / (np.sum(w) * l2) * np.array([np.linalg.norm(row) for row in x])


def local_radius(theta, x, y, s, w, l2, fairness, penalty, noise=None, reweigh=False, fast=False):
    """-ln(1 - nu R)/R >= ||theta - theta'||_H if nu R < 1, else inf (generalised self-concordance, Bach 2010).

    H = Hessian of F' at theta, nu = sqrt(g'H^-1 g), R = max over remaining rows of sqrt(x_i'H^-1 x_i). Since
    |sigma''| <= sigma', H(theta + t v) >= e^(-R t ||v||_H) H; integrating along v = theta' - theta gives
    nu ||v||_H >= ||v||_H^2 (1 - e^(-R ||v||_H))/(R ||v||_H). The bound on the scores is radius sqrt(x_i'H^-1 x_i).
    """
    problem = (x, y, s, w, l2, fairness, penalty, noise, reweigh, fast)
    h, g = hessian(theta, *problem), gradient(theta, *problem)
    nu = np.sqrt(g @ np.linalg.solve(h, g))
    longest = max(np.sqrt(x[i] @ np.linalg.solve(h, x[i])) for i in range(len(y)) if w[i] == 1)
    return float(-np.log1p(-nu * longest) / longest) if nu * longest < 1 else np.inf


def local_margins(theta, x, *problem, **options):
    """local_radius sqrt(x_i' H^-1 x_i) >= |x_i.(theta - theta')| for any row, remaining or not (Cauchy-Schwarz)."""
    h, radius = hessian(theta, x, *problem, **options), local_radius(theta, x, *problem, **options)
    return radius * np.array([np.sqrt(row @ np.linalg.solve(h, row)) for row in x])


# ------------------------------------------------------------------------------------------------- metrics
def _share(values):
    """Mean of a list of 0/1 integers, nan of an empty one."""
    return sum(values) / len(values) if values else np.nan


def group_metrics(prediction, y, s, w):
    """Rates by counting the rows with w = 1 (definitions as fairlearn's); a rate of no rows is nan.

    Differences are absolute, |rate_a - rate_b|, and of more than two groups the worst over all pairs, or with
    `_mean_gap` the mean; max or mean of the TPR and FPR gaps for equalized odds; disparate_impact = rate_0/rate_1, of
    more than two groups lowest over highest (c/0 = inf, 0/0 = nan); balanced_accuracy = (TPR + TNR)/2 of all groups.
    """
    rows, groups = [i for i in range(len(y)) if w[i] == 1], range(max(2, int(np.max(s)) + 1))
    correct = [[int(prediction[i] == y[i]) for i in rows if s[i] == g] for g in groups]
    cell = {(g, t): [int(prediction[i]) for i in rows if s[i] == g and y[i] == t] for g in groups for t in (0, 1)}
    selection = [_share(cell[g, 0] + cell[g, 1]) for g in groups]
    parity = [abs(selection[a] - selection[b]) for a, b in group_pairs(s)]
    fpr_gaps, tpr_gaps = ([abs(_share(cell[a, t]) - _share(cell[b, t])) for a, b in group_pairs(s)] for t in (0, 1))
    fpr_gap, tpr_gap = np.max(fpr_gaps), np.max(tpr_gaps)  # nan if any is
    fpr, tpr = (_share([value for g in groups for value in cell[g, t]]) for t in (0, 1))
    ratio = selection if len(selection) == 2 else (np.min(selection), np.max(selection))
    with np.errstate(divide="ignore", invalid="ignore"):
        impact = float(np.float64(ratio[0]) / np.float64(ratio[1]))
    return {
        "accuracy": _share([value for part in correct for value in part]),
        "balanced_accuracy": (tpr + 1 - fpr) / 2,
        **{f"accuracy_{g}": _share(correct[g]) for g in groups},
        **{f"selection_rate_{g}": selection[g] for g in groups},
        "demographic_parity": np.max(parity),
        "equal_opportunity": tpr_gap,
        "equalized_odds_mean": (tpr_gap + fpr_gap) / 2,
        "equalized_odds_max": float(np.maximum(tpr_gap, fpr_gap)),  # nan if either gap is
        "demographic_parity_mean_gap": np.mean(parity),
        "equal_opportunity_mean_gap": np.mean(tpr_gaps),
        "equalized_odds_mean_gap": np.mean(tpr_gaps + fpr_gaps),
        "disparate_impact": impact,
    }


def fairness_interval_brute(scores, margins, y, s, w):
    """{metric: (min, max)} over all 2^u predictions of the u <= 12 remaining rows with |score| <= margin.

    The other rows predict 1[score > 0]. Names are those of `group_metrics` without disparate_impact, which some
    assignments leave undefined; a rate whose denominator (a count of labels, never of predictions) is 0 is (nan, nan).
    """
    prediction = np.array([int(v > 0) for v in scores])
    undecided = [i for i in range(len(y)) if w[i] == 1 and abs(scores[i]) <= margins[i]]
    if len(undecided) > 12:
        raise ValueError(f"{len(undecided)} undecided rows; brute force takes at most 12")
    found = []
    for assignment in itertools.product((0, 1), repeat=len(undecided)):
        prediction[undecided] = assignment
        found.append(group_metrics(prediction, y, s, w))
    return {
        k: (float(min(m[k] for m in found)), float(max(m[k] for m in found)))
        for k in found[0]
        if k != "disparate_impact"
    }


# ------------------------------------------------------------------------------------------------ problems
class Problem(NamedTuple):
    """x (n, d) float64, bias last; y, s (n,) int; w (n,) before and w_remaining (n,) after `removed` (n,) bool."""

    x: np.ndarray
    y: np.ndarray
    s: np.ndarray
    w: np.ndarray
    removed: np.ndarray
    w_remaining: np.ndarray


def random_problem(seed, n, d, remove=0.2, subgroup=None, already_removed=0, groups=2):
    """n >= 4 groups random rows of norm <= 1 plus a bias column (d >= 2 counts it); features tell of label and group.

    Removes round(remove n) rows, all from group `subgroup` if it is given; `already_removed` rows start at w = 0.
    One row of each cell (group, label) is never removed, so that no cell becomes empty. Of more than two groups the
    higher ones are the smaller.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d - 1))
    s = features[:, 0] + rng.normal(size=n)
    s = (s > 0).astype(int) if groups == 2 else np.minimum(np.abs(groups * s / 2), groups - 1).astype(int)
    y = (features @ rng.normal(size=d - 1) + 0.5 * s + rng.normal(size=n) > 0).astype(int)
    keep = rng.permutation(n)[: 2 * groups]
    s[keep], y[keep] = np.repeat(np.arange(groups), 2), np.tile([0, 1], groups)
    x = np.hstack([features / np.linalg.norm(features, axis=1).max(), np.ones((n, 1))])
    w, removed = np.ones(n), np.zeros(n, bool)
    free = rng.permutation(np.setdiff1d(np.arange(n), keep))
    w[free[:already_removed]] = 0.0
    candidates = [i for i in free[already_removed:] if subgroup is None or s[i] == subgroup]
    k = round(remove * n)
    if k > len(candidates):
        raise ValueError(f"cannot remove {k} rows: only {len(candidates)} may go")
    removed[candidates[:k]] = True
    return Problem(x, y, s, w, removed, np.where(removed, 0.0, w))
