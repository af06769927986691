"""Verdicts: attacks that fail are not robustness, scale and offset of logits do not matter, attacks only add up."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import evaluation
from pags_jax.apgd import apgd, apgd_targeted
from pags_jax.attacks import pgd
from pags_jax.likelihood import log_prob
from pags_jax.margins import behind
from tests.pags import oracles

CLASSES, PIXELS, N = 6, 10, 80
PARAMS = tuple(jnp.asarray(array) for array in oracles.draw_params(3, PIXELS, hidden=16, classes=CLASSES))
X = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (N, PIXELS)))


def network(x):
    w, b, v, c = (array.astype(x.dtype) for array in PARAMS)
    return jnp.tanh(x @ w + b[None]) @ v + c[None]


def rounded(x):
    return network(jnp.round(4 * x) / 4)


def without_gradient(value):
    """The network, but for its derivative."""
    masked = jax.custom_vjp(network)
    masked.defvjp(lambda x: (network(x), x), lambda x, _: (jnp.full_like(x, value),))
    return masked


def flat_on_a_grid(x):
    on_grid = jnp.all(x == jnp.round(1024 * x) / 1024, axis=1, keepdims=True)
    return jnp.where(on_grid, jax.lax.stop_gradient(network(x)), network(x))


Y = jnp.argmax(network(X), axis=1)
MODELS = {
    "network": network, "zero": without_gradient(0.0), "nan": without_gradient(np.nan), "rounded": rounded,
    "flat on a grid": flat_on_a_grid,
}  # fmt: skip


@partial(jax.jit, static_argnames=("name", "attack", "norm"))
def judge(x, y, eps, scale, offset, *, name, attack, norm):
    given = {"key": jax.random.key(0), "steps": 8, f"eps_{norm}": eps}
    return evaluation.under_attack(lambda x: scale * MODELS[name](x) + offset, x, y, attack=attack, **given)


def verdict(name="network", *, x=X, y=Y, eps=0.5, scale=1.0, offset=0.0, attack="pgd", norm="l2"):
    numbers = (np.asarray(number, x.dtype) for number in (eps, scale, offset))
    return judge(x, y, *numbers, name=name, attack=attack, norm=norm)


# ------------------------------------------------------------------------------------ scale and offset
@pytest.mark.parametrize("attack", ["pgd", "ensemble"])
def test_scale_and_offset_of_logits_change_no_verdict(attack):
    """Powers of two change no digit but the exponent; others round, as does an offset of a million."""
    expected = verdict(attack=attack)
    assert 10 < expected.robust.sum() < N - 10
    assert not expected.no_gradient.any()
    for scale, offset in ((2.0**-20, 0), (2.0**20, 0), (1e-6, 0), (500, 0), (1e6, 0), (1, -1e6), (1, 1e3), (1e6, 1e6)):
        got = verdict(attack=attack, scale=scale, offset=offset)
        np.testing.assert_array_equal(np.stack(got), np.stack(expected))


def test_float32_gives_the_verdicts_of_float64_at_every_scale():
    """Gradients of the cross-entropy would be zero from a scale of about 100 on."""
    expected = verdict()
    for scale, offset in ((1e-6, 0), (1, 0), (1e3, 0), (1e6, 0), (1e6, 1e6)):
        got = verdict(x=X.astype(jnp.float32), scale=scale, offset=offset)
        np.testing.assert_array_equal(np.stack(got), np.stack(expected))


def test_logits_that_float32_cannot_tell_apart_are_wrong():
    """An offset of a billion: all logits are equal, and the first class is no answer."""
    got = verdict(x=X.astype(jnp.float32), offset=1e9, y=0 * Y)
    assert not np.stack(got).any()


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_p19_the_attack_has_the_direction_of_the_cross_entropy_also_where_that_is_flat(scope):
    """P19: against float64 log-probabilities, with examples that are coupled by their batch's mean, and in float32 at
    a scale where the reference's gradient is zero."""

    def coupled(x):
        return 3 * network(x - 0.5 * jnp.mean(x, axis=0, keepdims=True))

    @partial(jax.jit, static_argnums=1)
    def one_step(x, model):
        return pgd(model, x, Y, key=None, start=jnp.zeros_like(x), eps_l2=1e-3, steps=1, scope=scope)

    gradient = np.asarray(jax.jit(jax.grad(lambda x: -log_prob(coupled(x), Y).sum()))(X))
    axis = 1 if scope == "example" else None
    expected = 1e-3 * gradient / np.linalg.norm(gradient, axis=axis, keepdims=True)
    np.testing.assert_allclose(one_step(X, coupled), expected, rtol=0, atol=1e-12)
    sure = jax.jit(jax.grad(lambda x: -log_prob(1e4 * network(x), Y).sum()))(X.astype(jnp.float32))
    flat = ~np.any(np.asarray(sure) != 0, axis=1)
    assert flat.sum() > N // 2
    delta = one_step(X.astype(jnp.float32), lambda x: 1e4 * network(x))
    if scope == "example":
        np.testing.assert_allclose(np.linalg.norm(delta, axis=1), 1e-3, rtol=1e-5)
        uphill = np.asarray(jax.jit(jax.vmap(jax.grad(lambda x, y: lag(network(x[None]), y))))(X, Y))
        cosine = np.sum(np.asarray(delta, np.float64) * uphill, axis=1) / np.linalg.norm(uphill, axis=1) / 1e-3
        np.testing.assert_allclose(cosine, 1, rtol=1e-4)
    else:
        assert np.linalg.norm(delta) == pytest.approx(1e-3, rel=1e-5)


def lag(logits, label):
    """The largest logit of another class less that of the label: what the cross-entropy tends to at a large scale."""
    others = jnp.where(jnp.arange(CLASSES)[None] == label, -jnp.inf, logits)
    return jnp.max(others) - logits[0, label]


# ------------------------------------------------------------------------------------- attacks that fail
@pytest.mark.parametrize(
    ("name", "attack"), [pytest.param("zero", "ensemble", marks=pytest.mark.slow), ("nan", "pgd"), ("rounded", "pgd")]
)
def test_without_a_gradient_nothing_is_robust(name, attack):
    """Also a defence that rounds pixels. What is not fooled is not known."""
    y = jnp.argmax(MODELS[name](X), axis=1)
    found = verdict(name, y=y, attack=attack, eps=0.05)
    assert found.correct.all()
    assert not found.robust.any()
    assert found.no_gradient.sum() > N // 2  # The others are fooled by a random start.


def test_a_class_far_behind_is_no_gradient_of_the_margin():
    """The cross-entropy and targets rise by a class that is never first, where those that compete are flat."""

    def model(x):
        return jnp.concatenate([10 * jax.nn.one_hot(jnp.argmax(network(x), axis=1), CLASSES), x[:, :1] - 5], axis=1)

    options = {"key": jax.random.key(0), "eps_l2": 0.01, "steps": 1, "attack": "ensemble", "bounds": None}
    found = jax.jit(lambda x, y: evaluation.under_attack(model, x, y, **options))(X, jnp.argmax(model(X), axis=1))
    assert found.correct.all()
    assert not found.robust.any()
    assert found.no_gradient.any()


def test_what_all_logits_share_is_no_gradient():
    """Also where other classes tie: shares of a third would leave rounding."""
    y = jnp.argmax(network(X), axis=1)

    def model(x):
        return 10 * jax.nn.one_hot(jnp.argmax(network(x), axis=1), CLASSES, dtype=x.dtype) + x[:, :1]

    gradient = jax.jit(jax.grad(lambda x: behind("margin", model(x), y).sum()))(X.astype(jnp.float32))
    assert not np.any(gradient)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda x: (x, {}), "must return logits alone, got a tuple"),
        (lambda x: (100 * x).astype(int), "must be floats, got int"),
        (lambda x: jax.lax.complex(x, x), "must be floats, got complex"),
        (lambda x: x - x.mean(0, keepdims=True), "does not treat each example by itself"),
    ],
)
def test_what_is_no_classifier_is_refused(model, said):
    with pytest.raises(ValueError, match=said):
        inspect.unwrap(evaluation.correct)(model, jnp.eye(3), jnp.arange(3))


def test_one_attack_with_a_gradient_is_enough():
    """Flat at the images themselves alone: the random start climbs, so that the verdict stands."""
    x = jnp.round(1024 * X) / 1024
    y = jnp.argmax(network(x), axis=1)
    found = verdict("flat on a grid", x=x, y=y, eps=0.01)
    assert found.robust.sum() > N // 2
    np.testing.assert_array_equal(found.robust, verdict(x=x, y=y, eps=0.01).robust)
    assert not found.no_gradient.any()


def test_logits_that_are_not_finite_are_wrong():
    logits = jnp.array([[1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0], [1.0, -np.inf], [1.0, 1.0], [np.nan, np.nan]])
    assert evaluation.correct(lambda x: logits, jnp.zeros((6, 2)), jnp.zeros(6, int)).tolist() == [True] + [False] * 5


def test_a_model_that_breaks_inside_of_the_ball_is_not_robust_there():
    """NaN where the first pixel exceeds 0.8, which the attack on class 0 makes it do: that is no right answer."""

    def model(x):
        logits = jnp.stack([2 - x[:, 0], x[:, 0]], axis=1)
        return jnp.where(x[:, :1] > 0.8, jnp.nan, logits)

    x = jnp.array([[0.3, 0.5], [0.75, 0.5]])
    given = {"key": jax.random.key(0), "steps": 8, "attack": "ensemble"}
    found = jax.jit(lambda y: evaluation.under_attack(model, x, y, eps_linf=0.1, **given))(jnp.zeros(2, int))
    assert found.correct.tolist() == [True, True]
    assert found.robust.tolist() == [True, False]


# The range of bfloat16 is that of float32.
@pytest.mark.parametrize("dtype", [jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.weekly)])
def test_lengths_do_not_overflow_in_half_precision(dtype):
    """Gradients of 6e4, of which two alone overflow float16; and 100,000 pixels, whose squares sum beyond it."""
    w = jnp.full((1000, 1), 60.0, dtype)

    def model(x):
        ahead = (x - 0.5) @ w
        return jnp.concatenate([ahead, -ahead], axis=1)

    x = jnp.full((2, 1000), 0.5, dtype) + jnp.array([[0.01], [0.1]], dtype)
    y, given = jnp.zeros(2, int), {"key": jax.random.key(0), "steps": 5}
    for norm, eps in (("eps_l2", 1.0), ("eps_linf", 0.05)):  # Distances: 0.01 sqrt(1000) = 0.32 and 3.2.
        found = jax.jit(partial(evaluation.under_attack, model, **given, **{norm: eps}))(x, y)
        assert [part.tolist() for part in found] == [[True, True], [False, True], [False, False]]
        delta = jax.jit(partial(pgd, model, **given, **{norm: eps}))(x, y)
        assert delta.dtype == dtype
        wide = np.asarray(delta, np.float64)
        size = np.linalg.norm(wide, axis=1) if norm == "eps_l2" else np.abs(wide).max(1)
        assert (size <= eps * (1 + 1e-6)).all()
        assert (size > 0.98 * eps).all()


# ----------------------------------------------------------------------------------------- what adds up
def fooled(*found):
    return jnp.any(jnp.stack([one.fooled for one in found]), axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "radii"), [("eps_l2", (0.2, 0.35, 0.5)), ("eps_linf", (0.07, 0.12, 0.18))])
def test_no_attack_is_stronger_than_the_ensemble_of_croce_and_hein(norm, radii):
    """At equal budgets: 10 gradients by each of APGD-CE and five targets, against 60 of PGD on every loss."""

    @jax.jit
    @jax.vmap
    def everything(eps):
        given = {"key": jax.random.key(1), norm: eps, "bounds": (0, 1), "with_outcome": True}
        theirs = [apgd(network, X, Y, steps=10, **given), apgd_targeted(network, X, Y, steps=10, **given)]
        ours = [
            pgd(network, X, Y, steps=60, loss=loss, best_step=True, **given)
            for loss in ("cross_entropy", "margin", "dlr")
        ]
        ours += [
            pgd(network, X, Y, steps=10, loss="margin", restarts=6, **given),
            pgd(network, X, Y, steps=60, start=jnp.zeros_like(X), **given | {"key": None}),
        ]
        return fooled(*theirs), jnp.stack([found.fooled for found in ours])

    strongest, ours = everything(jnp.array(radii))
    assert (strongest.sum(1) > 5).all()
    assert (strongest.sum(1) < N - 5).all()
    assert (ours.sum(2) <= strongest.sum(1)[:, None] + 1).all()
    assert (ours & ~strongest[:, None]).sum() <= 2


def test_an_ensemble_only_takes_away_and_is_each_of_its_parts():
    """What PGD leaves, less what APGD finds on logits that are divided by their spread."""
    few, many = verdict(), verdict(attack="ensemble")
    assert not (many.robust & ~few.robust).any()
    spread = network(X).max(1, keepdims=True) - network(X).min(1, keepdims=True)
    for_apgd, for_targeted = jax.random.split(jax.random.key(0))
    given = {"eps_l2": 0.5, "steps": 8, "bounds": (0.0, 1.0), "with_outcome": True}

    @jax.jit
    def more(x):
        return fooled(
            apgd(lambda x: network(x) / spread, x, Y, key=for_apgd, **given),
            apgd_targeted(lambda x: network(x) / spread, x, Y, key=for_targeted, **given),
        )

    np.testing.assert_array_equal(many.robust, few.robust & ~more(X))
    with pytest.raises(ValueError, match="unknown attack 'apgd'; known: pgd, ensemble"):
        inspect.unwrap(evaluation.under_attack)(network, X, Y, key=for_apgd, eps_l2=0.1, steps=2, attack="apgd")


def test_a_radius_for_each_example_is_a_ball_for_each():
    eps = jnp.linspace(0.01, 0.4, N)
    attack = jax.jit(lambda x, y, eps: pgd(network, x, y, key=None, start=jnp.zeros_like(x), eps_l2=eps, steps=5))
    deltas = attack(X, Y, eps)
    np.testing.assert_allclose(np.linalg.norm(deltas, axis=1), eps, rtol=1e-9)
    np.testing.assert_allclose(deltas[40], attack(X, Y, jnp.full(N, eps[40]))[40], atol=1e-12)
    robust = [verdict(eps=radius).robust for radius in (0.2, 0.7)]
    mixed = jnp.where(jnp.arange(N) % 2 == 0, 0.2, 0.7)
    np.testing.assert_array_equal(verdict(eps=mixed).robust, np.where(np.arange(N) % 2 == 0, *robust))
    assert robust[0].sum() > robust[1].sum()


def test_accuracy_averages_every_field_of_a_verdict():
    def judged(x, y, key):
        return verdict(x=x, y=y)

    whole = verdict()
    found = evaluation.accuracy(judged, X, Y, key=jax.random.key(0), batch_size=N)
    np.testing.assert_allclose(found, np.mean(np.stack(whole), axis=1), rtol=1e-6)
    assert found.correct == 1 > found.robust > 0 == found.no_gradient


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_wrong_without_a_warning(bad):
    x, y = jnp.full((3, 2), 0.5), jnp.zeros(3, int)
    found = evaluation.correct(lambda x: jnp.stack([x[:, 0] + bad, x[:, 1]], 1), x, y)
    assert found.tolist() == [False] * 3


def test_accuracies_are_those_of_each_judgement_and_attacks_are_on_the_first_rows():
    """Half of the images are bytes of class 0 above one half; a radius of 0.2 moves those that are near."""

    def apply_fn(x):
        return jnp.stack([x[:, 0], 1 - x[:, 0]], axis=1)

    def flat(x):
        return jax.lax.stop_gradient(apply_fn(x))

    x, y = jnp.array([[153], [230], [102], [26]], jnp.uint8), jnp.array([0, 0, 1, 0])  # 0.6, 0.9, 0.4, 0.1
    attack = {"key": jax.random.key(0), "steps": 5, "norm": "linf"}
    attack["as_is"] = jax.jit(evaluation.judge_as_is, static_argnums=0)
    attack["within"] = jax.jit(evaluation.judge_within, static_argnums=0, static_argnames=("steps", "norm"))
    found = evaluation.accuracies(apply_fn, x, y, radii=(0.05, 0.2), batch_size=3, **attack)
    assert (found.clean, found.robust, found.no_gradient) == (0.75, [0.75, 0.25], [0, 0])
    assert evaluation.accuracies(apply_fn, x, y, radii=(0.2,), rows=2, **attack).robust == [0.5]
    assert evaluation.accuracies(flat, x, y, radii=(0.2,), **attack).no_gradient == [3]
