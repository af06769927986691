"""The objective against the NumPy oracles, its closed forms against autodiff, its products against dense matrices."""

import functools
import itertools
import pydoc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.flatten_util import ravel_pytree
from sklearn.linear_model import LogisticRegression

from fmu_jax import Objective, cells, fit, make_data, penalties, predict_labels, sample_noise
from fmu_jax import objective as objectives
from tests import oracles
from tests.placing import put

PENALTIES = tuple(penalties.PENALTIES)
#: Each penalty once, two of them reweighed.
TURNS = list(zip(PENALTIES, (True, False, False, True), strict=True))
N, D = 40, 4
PROBLEM = oracles.random_problem(1, N, D, already_removed=3)
THETA, NOISE, VECTOR = np.random.default_rng(2).normal(size=(3, D))
L2, FAIRNESS = 0.03, 1.7


def rows(weight=PROBLEM.w):
    return make_data(PROBLEM.x, PROBLEM.y, PROBLEM.s, weight)


def case(penalty, reweigh=False, noise=None, weight=PROBLEM.w):
    """(objective, data) and the same problem as the oracles take it."""
    objective = Objective(l2=L2, fairness=FAIRNESS, penalty=penalty, reweigh=reweigh)
    return objective, rows(weight), (PROBLEM.x, PROBLEM.y, PROBLEM.s, weight, L2, FAIRNESS, penalty, noise, reweigh)


def linear_predict(params, x):
    return x @ params


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
        return linen.Dense(1, param_dtype=jnp.float64)(x)[:, 0]


@functools.cache
def mlp_params():
    return jax.jit(Mlp().init)(jax.random.key(0), jnp.zeros((1, D)))


def mlp_case(penalty):
    return Objective(l2=L2, fairness=FAIRNESS, penalty=penalty, predict=Mlp().apply), mlp_params()


#: Those of one form are one program but for the label match; all of them weekly.
FORMS = [
    pytest.param(penalty, marks=[] if penalty in ("equalized_odds", "individual") else pytest.mark.weekly)
    for penalty in PENALTIES
]


def materialise(product, like):
    """The dense matrix of a linear map on pytrees."""
    flat, unravel = ravel_pytree(like)
    return np.asarray(jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))(jnp.eye(flat.size))).T


@pytest.mark.parametrize(
    ("penalty", "reweigh", "noisy", "removed"),
    # Each two of the four at all their values, weekly the product.
    [
        pytest.param(penalty, reweigh, noisy, removed, marks=[] if (noisy, removed) == turn else pytest.mark.weekly)
        for (k, penalty), reweigh, noisy, removed in itertools.product(enumerate(PENALTIES), *3 * [(False, True)])
        for turn in [((k + reweigh) % 2 == 0, (k // 2 + reweigh) % 2 == 0)]
    ],
)
def test_value_gradient_and_hessian_equal_the_oracles(penalty, reweigh, noisy, removed):
    noise = put(NOISE) if noisy else None
    objective, data, problem = case(penalty, reweigh, noise, PROBLEM.w_remaining if removed else PROBLEM.w)
    np.testing.assert_allclose(
        objectives.value(objective, put(THETA), data, noise), oracles.objective(THETA, *problem), rtol=1e-12
    )
    np.testing.assert_allclose(
        objectives.gradient(objective, put(THETA), data, noise), oracles.gradient(THETA, *problem), rtol=1e-11
    )
    np.testing.assert_allclose(
        objectives.hessian(objective, put(THETA), data), oracles.hessian(THETA, *problem), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(("penalty", "reweigh"), TURNS)
def test_a_removed_row_is_as_good_as_gone(penalty, reweigh):
    objective, data, _ = case(penalty, reweigh, weight=PROBLEM.w_remaining)
    kept = PROBLEM.w_remaining == 1
    smaller = make_data(PROBLEM.x[kept], PROBLEM.y[kept], PROBLEM.s[kept])
    for function in (objectives.value, objectives.gradient, objectives.hessian):
        whole, part = (function(objective, put(THETA), d) for d in (data, smaller))
        np.testing.assert_allclose(whole, part, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("penalty", "reweigh"), TURNS)
def test_closed_forms_equal_autodiff(penalty, reweigh):
    objective, data, _ = case(penalty, reweigh)
    automatic = Objective(l2=L2, fairness=FAIRNESS, penalty=penalty, reweigh=reweigh, predict=linear_predict)
    theta, noise = put(THETA), put(NOISE)
    np.testing.assert_allclose(
        objectives.gradient(objective, theta, data, noise),
        jax.jit(objectives.gradient)(automatic, theta, data, noise),
        rtol=1e-10,
    )
    dense = jax.jit(jax.hessian(objectives.value, argnums=1))(automatic, theta, data, noise)
    np.testing.assert_allclose(objectives.hessian(objective, theta, data), dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("penalty", "reweigh"), TURNS)
def test_both_products_materialise_to_the_hessian_of_the_linear_model(penalty, reweigh):
    objective, data, _ = case(penalty, reweigh)
    theta = put(THETA)
    dense = objectives.hessian(objective, theta, data)
    for product in (objectives.hessian_vector_product, objectives.gauss_newton_vector_product):
        matrix = materialise(lambda v, product=product: product(objective, theta, data, v), theta)
        np.testing.assert_allclose(matrix, dense, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("penalty", FORMS)
def test_hessian_vector_product_of_a_network_equals_its_hessian(penalty):
    objective, params = mlp_case(penalty)
    flat, unravel = ravel_pytree(params)
    dense = jax.jit(jax.hessian(lambda v: objectives.value(objective, unravel(v), rows())))(flat)
    matrix = materialise(lambda v: objectives.hessian_vector_product(objective, params, rows(), v), params)
    np.testing.assert_allclose(matrix, dense, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("penalty", FORMS)
def test_gauss_newton_of_a_network_is_positive_and_its_definition(penalty):
    objective, params = mlp_case(penalty)
    data = rows()
    flat, unravel = ravel_pytree(params)
    matrix = materialise(lambda v: objectives.gauss_newton_vector_product(objective, params, data, v), params)
    scores = Mlp().apply(params, data.x)
    jacobian = jax.jit(jax.jacobian(lambda v: Mlp().apply(unravel(v), data.x)))(flat)

    def by_scores(f):  # loss and penalty as a function of the scores alone
        return objectives.value(Objective(l2=0.0, fairness=FAIRNESS, penalty=penalty, predict=lambda f, _: f), f, data)

    expected = jacobian.T @ jax.jit(jax.hessian(by_scores))(scores) @ jacobian + PROBLEM.w.sum() * L2 * np.eye(
        flat.size
    )
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-10)
    assert np.linalg.eigvalsh(matrix)[0] > 0.99 * PROBLEM.w.sum() * L2


@pytest.mark.parametrize(
    ("penalty", "expected"),
    # Pairs (a, b) of scores: (1, 3) and (2, 5) share a label; (1, 5) and (2, 3) do not. n_a n_b = 4.
    [
        ("equalized_odds", ((-2 - 3) / 4) ** 2),
        ("demographic_parity", ((-2 - 3 - 4 - 1) / 4) ** 2),
        ("equal_opportunity", (-3 / 4) ** 2),
        ("individual", (4 + 9) / 4),
    ],
)
def test_penalty_by_hand(penalty, expected):
    data = make_data(np.ones((5, 1)), [0, 1, 0, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0])
    assert float(penalties.from_scores(penalty, jnp.array([1.0, 2, 3, 5, 99]), data)) == pytest.approx(expected)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_of_arbitrary_scores(penalty):
    data = rows(PROBLEM.w_remaining)
    scores = put(np.random.default_rng(3).normal(scale=10, size=N))
    expected = oracles.penalty_from_scores(penalty, scores, PROBLEM.y, PROBLEM.s, PROBLEM.w_remaining)
    np.testing.assert_allclose(penalties.from_scores(penalty, scores, data), expected, rtol=1e-11)
    np.testing.assert_allclose(
        penalties.score_gradient(penalty, scores, data),
        jax.grad(penalties.from_scores, argnums=1)(penalty, scores, data),
        rtol=1e-10,
        atol=1e-14,
    )
    scores = data.x @ put(THETA)
    by_form = put(THETA) @ penalties.quadratic_form(penalty, data) @ put(THETA)
    np.testing.assert_allclose(by_form, penalties.from_scores(penalty, scores, data), rtol=1e-10)


def test_penalty_does_not_overflow_where_the_product_of_the_group_sizes_would():
    """n_a n_b = 2.5e9 is beyond int32: the penalty of constant groups is the squared gap, whatever n."""
    n = 100_000
    group = np.arange(n) % 2
    data = make_data(np.ones((n, 1), np.float32), np.arange(n) // 2 % 2, group)
    scores = jnp.asarray(np.where(group == 0, 1.0, -1.0), jnp.float32)
    found = jax.jit(lambda scores, data: penalties.from_scores("demographic_parity", scores, data))(scores, data)
    # Each gap is a sum of 50,000 terms, which JAX 0.10.0 adds one after another, and is squared.
    assert float(found) == pytest.approx(4.0, rel=2 * 50_000 * 2**-24)


def test_reweighing_equals_the_oracle_and_makes_label_and_group_independent():
    data = rows(PROBLEM.w_remaining)
    weight = objectives.row_weights(Objective(l2=L2, reweigh=True), data)
    np.testing.assert_allclose(
        weight, oracles.loss_weights(PROBLEM.y, PROBLEM.s, PROBLEM.w_remaining, reweigh=True), rtol=1e-12
    )
    mass = np.array([[weight[(PROBLEM.s == g) & (PROBLEM.y == t)].sum() for t in (0, 1)] for g in (0, 1)])
    np.testing.assert_allclose(mass * mass.sum(), np.outer(mass.sum(axis=1), mass.sum(axis=0)), rtol=1e-12)


def test_predicted_label_is_one_where_the_log_odds_are_positive():
    objective = Objective(l2=L2)
    labels = predict_labels(objective, jnp.array([1.0, 0.0]), jnp.array([[1.0, 1], [-1.0, 1], [0.0, 1]]))
    assert labels.tolist() == [1, 0, 0]


def test_noise_has_the_shape_dtype_and_scale_asked_for():
    like = {"a": jnp.zeros((200, 50), jnp.float32), "b": jnp.zeros(3, jnp.float32)}
    noise = sample_noise(like, key=jax.random.key(0), sigma=3.0)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), noise) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), like
    )
    assert float(noise["a"].std()) == pytest.approx(3.0, rel=0.03)
    again, other = (sample_noise(like, key=jax.random.key(k), sigma=3.0)["a"] for k in (0, 1))
    assert bool((noise["a"] == again).all())
    assert not bool((noise["a"] == other).any())
    with pytest.raises(TypeError, match="key"):
        sample_noise(like, sigma=1.0)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_noise_of_impossible_scale_is_refused(sigma):
    with pytest.raises(ValueError, match="`sigma` must be finite and >= 0"):
        sample_noise(jnp.zeros(2), key=jax.random.key(0), sigma=sigma)


@pytest.mark.parametrize("bad", [-1.0, -1, float("inf"), float("nan"), np.float64(-1e-9), np.float32(-1)])
@pytest.mark.parametrize("name", ["l2", "fairness"])
def test_impossible_strengths_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0"):
        Objective(**{"l2": 1.0, name: bad})


def test_unknown_penalty_is_refused_and_the_known_ones_listed():
    with pytest.raises(ValueError, match=r"unknown penalty 'equal_odds'.*equalized_odds"):
        Objective(l2=1.0, penalty="equal_odds")


@pytest.mark.parametrize(
    ("penalty", "seen"),
    [(lambda scores, data: 0.0, "the function '<lambda>'"), (np.eye(2), "a ndarray"), (["individual"], "a list")],
)
def test_what_is_no_penalty_is_told_how_to_make_one(penalty, seen):
    said = rf"a name \(equalized_odds, .* a Penalty of .*, got {seen}; .*Penalty\(match=\[\["
    with pytest.raises(ValueError, match=said):
        penalties.check(penalty)


@pytest.mark.parametrize(
    "match", [np.eye(3), [[1.0, -1.0], [0.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]], [["a", 0], [0, 1]]]
)
def test_a_match_is_a_matrix_of_weights(match):
    with pytest.raises(ValueError, match="`match` must"):
        Objective(l2=1.0, fairness=1.0, penalty=penalties.Penalty(match))


@pytest.mark.parametrize("x64", [True, False])
def test_all_penalties_of_a_form_are_one_argument_of_a_program(x64):
    """A name, lists, NumPy's numbers of either precision: one array of the default float, of no tracer."""
    given = ("equalized_odds", penalties.Penalty([[1, 0], [0, 1]]), penalties.Penalty(np.eye(2, dtype=np.float32)))
    with jax.enable_x64(x64):

        def seen(penalty):
            return jax.tree.flatten(Objective(l2=L2, fairness=FAIRNESS, penalty=penalty))

        (leaves, structure), *others = map(seen, given)
        assert isinstance(leaves[2], jax.Array)
        assert leaves[2].dtype == (jnp.float64 if x64 else jnp.float32)
        np.testing.assert_array_equal(leaves[2], np.eye(2))
        for other, shape in others:
            assert shape == structure
            assert other[2].dtype == leaves[2].dtype
        jax.jit(lambda _: [leaf.shape for leaf in seen("equalized_odds")[0][2:]])(0)
        assert jax.eval_shape(lambda m: seen(penalties.Penalty(m))[0][2], leaves[2]).shape == (2, 2)


def test_help_holds_the_formula():
    shown = pydoc.render_doc(Objective, renderer=pydoc.plaintext)
    assert "F(theta) = sum_i w_i log(1 + exp(-t_i f_i)) + n (l2 / 2) |theta|^2 + n fairness R(f) + b . theta" in shown
    assert shown.isascii()


def test_the_formula_of_the_help_is_the_value():
    """Summed over pairs and rows one by one, in NumPy."""
    x, y, s, w = PROBLEM.x, PROBLEM.y, PROBLEM.s, PROBLEM.w
    f, n = x @ THETA, w.sum()
    pairs = [(i, j) for i in np.flatnonzero(w * (s == 0)) for j in np.flatnonzero(w * (s == 1)) if y[i] == y[j]]
    gap = sum(f[i] - f[j] for i, j in pairs) / ((w * (s == 0)).sum() * (w * (s == 1)).sum())
    expected = (w * np.log1p(np.exp(-(2 * y - 1) * f))).sum() + n * L2 / 2 * THETA @ THETA + n * FAIRNESS * gap**2
    objective = Objective(l2=L2, fairness=FAIRNESS)
    found = objectives.value(objective, put(THETA), rows(), put(NOISE))
    assert float(found) == pytest.approx(expected + NOISE @ THETA, rel=1e-12)


def test_scikit_learns_weights():
    """The guide's recipe: equal with the constant as a feature, and as 1/c^2 without a penalty on the intercept."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(300, 3)), np.ones(300)])
    y = (x @ [1.0, -1.0, 0.5, 0.7] + rng.logistic(size=300) > 0).astype(int)
    strength = {"C": 1 / (300 * L2), "tol": 1e-12, "max_iter": 10_000}

    def ours(c):
        data = make_data(np.column_stack([x[:, :-1], c * x[:, -1]]), y, np.arange(300) % 2)
        return np.asarray(fit(Objective(l2=L2), data).params) * [1, 1, 1, c]

    same = LogisticRegression(fit_intercept=False, **strength).fit(x, y).coef_[0]
    np.testing.assert_allclose(ours(1.0), same, atol=1e-7)
    free = LogisticRegression(**strength).fit(x[:, :-1], y)
    off = [np.abs(ours(c) - [*free.coef_[0], free.intercept_[0]]).max() for c in (10.0, 100.0)]
    assert off[0] < 1e-3
    assert off[0] / off[1] == pytest.approx(100, rel=0.05)


def test_a_penalty_of_ones_own_interpolates_between_the_named_ones():
    """The gap is linear in the label match: half of demographic parity's plus half of equalized odds'."""
    data, scores = make_data(np.ones((6, 1)), [0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 1, 0]), jnp.arange(6.0) ** 2
    both = penalties.Penalty(np.array([[1.0, 0.5], [0.5, 1.0]]))
    gaps = [
        scores @ (cells.spread(penalties.coefficients(name, cells.counts(data))[0][0], data))
        for name in ("equalized_odds", "demographic_parity")
    ]
    np.testing.assert_allclose(penalties.from_scores(both, scores, data), (sum(gaps) / 2) ** 2, rtol=1e-12)
