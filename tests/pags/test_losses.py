"""Losses against hand-written derivatives, the reference's formula, and the forward pass that each is trained on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pags_jax import losses
from pags_jax.gradients import input_gradients
from pags_jax.losses import LOSSES, adversarial, cross_entropy, gradient_norm, randomized_smoothing, smoothness
from tests.pags import oracles

KEY = jax.random.key(0)
NAMES = tuple(LOSSES)


def mlp(params):
    w, b, v, c = map(jnp.asarray, params)
    return lambda x: jax.nn.softplus(x @ w + b[None]) @ v + c[None]


def draw(n, pixels=8, seed=0):
    """Parameters, images and labels in NumPy."""
    rng = np.random.default_rng(seed)
    return oracles.draw_params(seed + 1, pixels), rng.uniform(size=(n, pixels)), rng.integers(0, 3, n)


def of_network(loss, params, x, y, *arguments, **options):
    return loss(mlp(params), jnp.asarray(x), jnp.asarray(y), *arguments, **options)


def mean_loss(params, x, y):
    return np.mean(oracles.cross_entropies(oracles.logits(params, np.asarray(x)), y))


def seen_inputs(loss, params, x, y, strength, **options):
    """What the model is called with, in order; eagerly, so that images have values."""
    seen = []

    def model(x):
        seen.append(x)
        return mlp(params)(x)

    value = loss(model, jnp.asarray(x), jnp.asarray(y), KEY, strength, **options)
    return value, seen


# ------------------------------------------------------------------------------------------ gradient norm
def test_cross_entropy_and_its_parameter_gradient_equal_the_oracle():
    params, x, y = draw(6)
    value, gradients = jax.jit(jax.value_and_grad(lambda params: of_network(cross_entropy, params, x, y)))(params)
    np.testing.assert_allclose(value, mean_loss(params, x, y), rtol=1e-12)
    expected = oracles.complex_step(lambda moved: oracles.penalised(moved, x, y, 0.0), params)
    for leaf, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("strength", [0.0, 1e-3, 10.0])
def test_gradient_norm_equals_hand_written_double_backward(strength):
    """The penalty from the input gradient by hand; its parameter gradient by complex steps of that."""
    params, x, y = draw(6)

    @jax.jit
    @jax.value_and_grad
    def value_and_gradients(params, strength):
        return of_network(gradient_norm, params, x, y, None, strength)

    value, gradients = value_and_gradients(params, strength)
    np.testing.assert_allclose(value, oracles.penalised(params, x, y, strength), rtol=1e-12)
    expected = oracles.complex_step(lambda moved: oracles.penalised(moved, x, y, strength), params)
    for leaf, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-9, atol=1e-13)
    if strength:  # Eagerly too.
        plain = of_network(gradient_norm, params, x, y, None, strength)
        np.testing.assert_allclose(plain, value, rtol=1e-12)


@pytest.mark.parametrize("strength", [0.5])
def test_gradient_norm_penalises_what_input_gradients_measures(strength):
    params, x, y = draw(6)
    model = mlp(params)
    gradients = input_gradients(model, jnp.asarray(x), jnp.asarray(y), target="loss")
    value = gradient_norm(model, jnp.asarray(x), jnp.asarray(y), None, strength)
    penalty = strength * np.mean(np.sum(np.asarray(gradients) ** 2, axis=1))
    np.testing.assert_allclose(value, mean_loss(params, x, y) + penalty, rtol=1e-12)


@pytest.mark.parametrize("n", [16, 80, 128])
@pytest.mark.parametrize("coupled", [False, True])
def test_p1_strengths_convert_from_the_reference(n, coupled):
    """P1: the published 1e5 * sum((d mean loss / d x)^2) / N, also where examples share batch statistics."""
    params, x, y = draw(n, seed=3)
    centre = np.eye(n) - np.ones((n, n)) / n if coupled else np.eye(n)
    # d mean loss / d x of f(C x) is C' g / N, with g of the uncoupled network at C x.
    by_mean = centre.T @ oracles.input_gradients(params, centre @ x, y) / n
    constant = 0.37
    published = constant * 1e5 * np.sum(by_mean**2) / n

    @jax.jit
    def penalty(params, x, y, strength):
        with_penalty, without = (gradient_norm(lambda x: mlp(params)(centre @ x), x, y, None, s) for s in (strength, 0))
        return with_penalty - without

    ours = penalty(params, x, y, losses.reference_strength(constant, n))
    np.testing.assert_allclose(ours, published, rtol=1e-10)


def test_float32_penalties_of_a_sure_model_are_right():
    """Logits +-a x lead by 2 a at x = 1: d l / d x = -2 a q with q = sigmoid(-2 a), and d q / d a = -2 q (1 - q).

    From `softmax - one_hot`, which rounds q to zero for the label alone, the slope would come out halved.
    """
    a, strength = 10.0, 1e12
    x, y = jnp.ones((2, 1), jnp.float32), jnp.array([0, 0])

    @jax.jit
    @jax.value_and_grad
    def value_and_gradient(a):
        return gradient_norm(lambda x: jnp.concatenate([a * x, -a * x], axis=1), x, y, None, strength)

    value, by_a = value_and_gradient(jnp.float32(a))
    q = 1 / (1 + np.exp(2 * a))
    slope, slope_by_a = 2 * a * q, 2 * q - 4 * a * q * (1 - q)
    np.testing.assert_allclose(value, strength * slope**2, rtol=1e-5)  # the cross-entropy, q, is far below
    np.testing.assert_allclose(by_a, 2 * strength * slope * slope_by_a, rtol=1e-5)


# ------------------------------------------------------------------------------------- noise and attacks
def test_smoothness_penalises_the_move_of_logits_under_noise():
    params, x, y = draw(400)
    value, (clean, noisy) = seen_inputs(smoothness, params, x, y, 2.0, sigma=0.25)
    np.testing.assert_array_equal(clean, x)
    moves = oracles.logits(params, x) - oracles.logits(params, np.asarray(noisy))
    np.testing.assert_allclose(value, mean_loss(params, x, y) + 2.0 * np.mean(np.sum(moves**2, axis=1)), rtol=1e-12)
    assert stats.kstest(((noisy - x) / 0.25).ravel(), "norm").pvalue > 1e-3


def test_randomized_smoothing_trains_on_noise_of_its_strength():
    params, x, y = draw(400)
    value, (noisy,) = seen_inputs(randomized_smoothing, params, x, y, 0.4)
    np.testing.assert_allclose(value, mean_loss(params, noisy, y), rtol=1e-12)
    assert stats.kstest(((noisy - x) / 0.4).ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize(("norm", "scope"), [("l2", "example"), ("l2", "batch"), ("linf", "example")])
def test_adversarial_trains_on_an_attack_of_its_strength(norm, scope):
    params, x, y = draw(6)
    value, seen = seen_inputs(adversarial, params, x, y, 0.5, steps=4, norm=norm, scope=scope)
    attacked = np.asarray(seen[-1])
    np.testing.assert_allclose(value, mean_loss(params, attacked, y), rtol=1e-12)
    axis = 1 if scope == "example" else None
    sizes = np.linalg.norm(attacked - x, ord=np.inf if norm == "linf" else None, axis=axis)
    np.testing.assert_allclose(sizes, 0.5, rtol=1e-12)
    assert value > mean_loss(params, x, y)


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_p6_an_attack_adds_nothing_to_the_parameter_gradient(scope):
    """P6: the reference accumulates the attack's own gradients; here the perturbed images are constants."""
    params, x, y = draw(6)

    @jax.jit
    def both(params):
        def loss(params):
            return adversarial(
                lambda x: (mlp(params)(x), x),
                jnp.asarray(x),
                jnp.asarray(y),
                KEY,
                0.5,
                steps=4,
                scope=scope,
                unroll=True,
                has_aux=True,
            )

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, attacked), gradients = both(params)
    expected = oracles.complex_step(lambda moved: oracles.penalised(moved, np.asarray(attacked), y, 0.0), params)
    for leaf, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------- one pass gives the aux
# Three steps of the attack, the pass that is trained on, and one whose output's shape alone is looked up.
CALLS = {"cross_entropy": 1, "gradient_norm": 1, "smoothness": 2, "randomized_smoothing": 1, "adversarial": 5}


def unrolled(name):
    return partial(adversarial, steps=3, unroll=True) if name == "adversarial" else LOSSES[name]


@pytest.mark.parametrize("name", NAMES)
def test_p5_aux_comes_from_the_pass_that_is_trained_on(name):
    """Also P5 and P7: running statistics see clean images, or noisy, or attacked ones, once."""
    params, x, y = draw(6)
    calls = []

    @jax.jit
    def value_and_aux(x, y):
        def model(x):
            calls.append(1)
            return mlp(params)(x), {"images": x}

        return unrolled(name)(model, x, y, KEY, 0.5, has_aux=True)

    value, aux = value_and_aux(x, y)
    assert len(calls) == CALLS[name]
    trained_on = np.asarray(aux["images"])
    if name in ("cross_entropy", "gradient_norm", "smoothness"):
        np.testing.assert_array_equal(trained_on, x)
    else:
        assert (trained_on != x).all()
        np.testing.assert_allclose(value, mean_loss(params, trained_on, y), rtol=1e-12)
    without = of_network(unrolled(name), params, x, y, KEY, 0.5)
    np.testing.assert_allclose(value, without, rtol=1e-12)


# ----------------------------------------------------------------------------------- what they run on
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_of_strengths_compiles_once(name):
    params, x, y = draw(6)
    traces = []

    @jax.jit
    @jax.value_and_grad
    def step(params, strength):
        traces.append(1)
        return of_network(LOSSES[name], params, x, y, KEY, strength)

    values = [float(step(params, strength)[0]) for strength in np.logspace(-3, 1, 5)]
    assert len(traces) == 1
    assert name == "cross_entropy" or len(set(values)) == 5


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_float32_whatever_the_strength_is(name):
    params, x, y = draw(3)
    params = tuple(jnp.asarray(array, jnp.float32) for array in params)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    for strength in (1, 0.5, np.float64(0.5), np.array(0.5)):
        value = jax.eval_shape(lambda x, y, s=strength: LOSSES[name](mlp(params), x, y, KEY, s), x, y)
        assert value.dtype == jnp.float32
    assert LOSSES[name](mlp(params), x, y, KEY, 1).dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_strength_of_zero_is_plain_training(name):
    params, x, y = draw(6)
    value = of_network(LOSSES[name], params, x, y, KEY, 0.0)
    np.testing.assert_allclose(value, mean_loss(params, x, y), rtol=1e-12)


@pytest.mark.parametrize("name", ["smoothness", "randomized_smoothing", "adversarial"])
def test_keys_decide_draws_alone(name):
    params, x, y = draw(6)
    value = jax.jit(lambda key: of_network(LOSSES[name], params, x, y, key, 0.5))
    assert value(KEY) == value(KEY) != value(jax.random.key(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("pixel", "label", "said"), [(np.inf, 0, "NaN or infinite"), (np.nan, 0, "NaN or infinite"), (0.5, -1, "got -1")]
)
def test_what_cannot_be_used_is_refused(name, pixel, label, said):
    x, y = jnp.full((2, 3), 0.5).at[1, 1].set(pixel), jnp.array([0, label])
    with pytest.raises(ValueError, match=said):
        LOSSES[name](lambda x: x, x, y, KEY, 0.5)


@pytest.mark.parametrize("name", ["cross_entropy", "gradient_norm", "randomized_smoothing", "adversarial"])
def test_losses_of_probabilities_leave_the_sum_of_logits_as_it_was_drawn(name):
    """Adding c(x) to all logits changes no probability, so that the last layer's weights sum to what they began with.

    The gradient of the sum of logits is then that of a random network, and aligns with nothing. Smoothness penalises
    logits, and does not leave the sum alone.
    """
    rng = np.random.default_rng(3)
    x, y = rng.uniform(size=(6, 5)), np.arange(6) % 3
    hidden, last = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))

    def of(loss):
        def value(last, x, y):
            return loss(lambda x: jnp.tanh(x @ hidden) @ last, x, y, KEY, 0.5)

        return np.asarray(jax.jit(jax.grad(value))(last, x, y))

    gradient = of(losses.LOSSES[name])
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-12 * np.abs(gradient).max())
    assert np.abs(of(losses.smoothness).sum(1)).max() > 1e-4


# -------------------------------------------------------------------------------------------- score alignment
def mlp_score(x, labels):
    """Some score of each class."""
    return jnp.sin(3 * x + labels[:, None].astype(x.dtype))


@pytest.mark.parametrize("given", ["function", "values"])
@pytest.mark.parametrize("target", ["logit", "log_prob"])
def test_score_alignment_equals_its_formula_with_input_gradients(given, target):
    params, x, y = draw(6)
    score = mlp_score if given == "function" else mlp_score(jnp.asarray(x), jnp.asarray(y))
    value = of_network(losses.score_alignment, params, x, y, None, 2.0, score=score, target=target)
    gradients = np.asarray(input_gradients(mlp(params), jnp.asarray(x), jnp.asarray(y), target=target))
    towards = np.asarray(mlp_score(jnp.asarray(x), jnp.asarray(y)))
    cosines = (gradients * towards).sum(1) / np.linalg.norm(gradients, axis=1) / np.linalg.norm(towards, axis=1)
    np.testing.assert_allclose(value, mean_loss(params, x, y) + 2 * (1 - cosines).mean(), rtol=1e-12)


def test_score_alignments_parameter_gradient_is_that_of_differences():
    params, x, y = draw(3)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return of_network(losses.score_alignment, params, x, y, None, 2.0, score=mlp_score)

    rng = np.random.default_rng(7)
    way = tuple(rng.normal(size=leaf.shape) for leaf in params)
    ahead, behind = (tuple(leaf + h * d for leaf, d in zip(params, way, strict=True)) for h in (1e-6, -1e-6))
    slope = sum(float((g * d).sum()) for g, d in zip(loss(params)[1], way, strict=True))
    np.testing.assert_allclose(slope, (loss(ahead)[0] - loss(behind)[0]) / 2e-6, rtol=1e-6)


def test_a_class_drawn_for_each_image_has_the_mean_over_all_classes():
    """Which is the penalty of Ganz et al.: one image many times, beside the three classes by hand."""
    params, x, y = draw(1)
    many_x, many_y = np.repeat(x, 6000, 0), np.repeat(y, 6000)
    loss = jax.jit(partial(of_network, losses.score_alignment, score=mlp_score), static_argnames="any_class")
    value = loss(params, many_x, many_y, KEY, 1.0, any_class=True)
    of_class = [loss(params, x, np.array([c]), None, 1.0) - mean_loss(params, x, np.array([c])) for c in range(3)]
    spread = np.std(of_class) / np.sqrt(6000)
    assert abs(value - mean_loss(params, x, y) - np.mean(of_class)) < 5 * spread


def test_score_alignment_turns_gradients_without_nan_where_there_are_none():
    """Steps along the penalty raise the cosine; a model without gradients, and a score of zero, have a derivative."""
    params, x, y = draw(4)

    @jax.jit
    @jax.value_and_grad
    def penalty(params, score):
        model = losses.score_alignment(mlp(params), jnp.asarray(x), jnp.asarray(y), None, 1.0, score=score)
        return model - cross_entropy(mlp(params), jnp.asarray(x), jnp.asarray(y))

    score = mlp_score(jnp.asarray(x), jnp.asarray(y))
    moved = tuple(map(jnp.asarray, params))
    for _ in range(200):
        moved = jax.tree.map(lambda p, g: p - 0.05 * g, moved, penalty(moved, score)[1])
    assert penalty(moved, score)[0] < penalty(params, score)[0] - 0.2
    for weights, towards in ((jax.tree.map(np.zeros_like, tuple(params)), score), (params, 0 * score)):
        value, slope = penalty(weights, towards)
        np.testing.assert_allclose(value, 1.0, rtol=1e-12)
        assert all(np.all(np.asarray(leaf) == 0) for leaf in slope)


def test_score_alignment_trains_and_refuses_what_does_not_fit():
    params, x, y = draw(4)
    loss = partial(losses.score_alignment, score=mlp_score)
    value, aux = loss(lambda x: (mlp(params)(x), "statistics"), jnp.asarray(x), jnp.asarray(y), None, 0.0, has_aux=True)
    np.testing.assert_allclose(value, mean_loss(params, x, y), rtol=1e-12)
    assert aux == "statistics"
    with pytest.raises(ValueError, match=r"`score` must have the shape \(4, 8\) of `x`, got \(4,\)"):
        of_network(losses.score_alignment, params, x, y, None, 1.0, score=jnp.ones(4))
    with pytest.raises(ValueError, match="give a `key`"):
        of_network(losses.score_alignment, params, x, y, None, 1.0, score=mlp_score, any_class=True)
    with pytest.raises(ValueError, match="`any_class` needs a `score"):
        of_network(losses.score_alignment, params, x, y, KEY, 1.0, score=jnp.asarray(x), any_class=True)
