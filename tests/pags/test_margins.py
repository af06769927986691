"""What attacks raise, against NumPy; labels of every type; models of one logit and of standardised images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from pags_jax import attacks, evaluation, gradients, images, likelihood, losses, margins, robustness, wrappers


def table(f, y, t):
    """Every loss of one example, away from ``y`` and towards ``t``."""
    ranked = np.sort(f)[::-1]

    def without(k):
        return np.delete(f, k)

    return {
        ("cross_entropy", False): logsumexp(without(y)) - f[y],
        ("cross_entropy", True): f[t] - logsumexp(without(t)),
        ("margin", False): without(y).max() - f[y],
        ("margin", True): f[t] - without(t).max(),
        ("dlr", False): (without(y).max() - f[y]) / (ranked[0] - ranked[2]),
        ("dlr", True): (f[t] - f[y]) / (ranked[0] - (ranked[2] + ranked[3]) / 2),
    }


def test_losses_are_those_of_the_table():
    rng = np.random.default_rng(0)
    logits, y = 9 * rng.normal(size=(40, 5)), rng.integers(0, 5, 40)
    t = (y + rng.integers(1, 5, 40)) % 5
    expected = [table(logits[i], y[i], t[i]) for i in range(40)]

    @jax.jit
    def found(logits, y, t):
        return {
            name: {towards: margins.behind(name, logits, y, t if towards else None) for towards in (False, True)}
            for name in ("cross_entropy", "margin", "dlr")
        }

    got = found(logits, y, t)
    assert {(loss, towards) for loss in got for towards in got[loss]} == set(expected[0])
    for loss, towards in expected[0]:
        np.testing.assert_allclose(got[loss][towards], [row[loss, towards] for row in expected], rtol=1e-12)


def test_differences_of_float16_logits_do_not_overflow():
    logits, y = jnp.array([[6e4, -6e4, 0.0, 0.0]], jnp.float16), jnp.array([0])
    assert margins.behind("margin", logits, y).tolist() == [-6e4]
    assert float(margins.behind("margin", logits, jnp.array([1]))[0]) == 2 * 6e4


# ------------------------------------------------------------------------------------------------ labels
WIDE = jnp.zeros((1, 1000)).at[0, 257].set(5.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int64", "uint64"])
def test_every_type_of_label_means_the_same_class(dtype):
    """The largest logit is that of class 257, which uint8 takes for 1."""

    def model(x):
        return x @ WIDE

    @jax.jit
    def found(x, y):
        gradient = [gradients.input_gradients(model, x, y, target=target) for target in ("logit", "log_prob", "loss")]
        return gradient, likelihood.log_prob(model(x), y), losses.cross_entropy(model, x, y)

    x, label = jnp.ones((1, 1)), np.array([1])
    y = jnp.asarray(label.astype(dtype))
    assert evaluation.correct(model, x, y).tolist() == [False]
    expected = 0.0 - np.log(999 + np.exp(5.0))
    gradient, log_prob, loss = found(x, y)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-12)
    np.testing.assert_array_equal(gradient, found(x, jnp.asarray(label))[0])
    np.testing.assert_allclose(loss, -expected, rtol=1e-12)


W = np.random.default_rng(1).normal(size=(3, 4))
HALF = np.full((2, 3), 0.5)


@jax.jit
def judged(y):
    def model(x):
        return x @ W

    x, given = jnp.asarray(HALF), {"key": jax.random.key(0)}
    gradient = [gradients.input_gradients(model, x, y, target=target) for target in ("logit", "log_prob", "loss")]
    verdict = evaluation.under_attack(model, x, y, **given, eps_l2=0.0, steps=1)
    return jnp.stack(gradient), verdict, attacks.pgd(model, x, y, **given, eps_l2=1, steps=2)


@pytest.mark.parametrize("label", [4, 250, -1, 2**32, 2**40 + 1])
def test_a_traced_label_that_is_no_class_is_wrong_and_has_no_gradient(label):
    """Eagerly it is refused; a narrow cast would make a class of it."""
    y = np.array([label, 1])
    gradient, verdict, delta = jax.tree.map(np.asarray, judged(y))
    np.testing.assert_array_equal(np.isnan(gradient).all((0, 2)), [True, False])
    np.testing.assert_array_equal(np.isnan(gradient).any((0, 2)), [True, False])
    right = int(np.argmax(HALF[1] @ W)) == 1
    assert [part.tolist() for part in verdict] == [[False, right], [False, right], [False, False]]
    assert np.isfinite(delta).all()
    with pytest.raises(ValueError, match=f"got {label}$"):
        evaluation.correct(lambda x: x @ W, jnp.asarray(HALF), jnp.asarray(y))


def test_as_labels():
    y = np.array([0, 2**31 - 1, 2**31, 2**32, 2**40, -1, -(2**40)])
    assert images.as_labels(y).tolist() == [0, *[images.NO_CLASS] * 6]
    assert images.as_labels(y).dtype == jnp.int32
    assert images.as_labels(np.array([200, 3], np.uint8)).tolist() == [200, 3]


# ------------------------------------------------------------------------------- one logit, standardised images
ONE = jnp.asarray(np.random.default_rng(2).normal(size=(6, 1)))
X = jnp.asarray(np.random.default_rng(3).uniform(size=(5, 6)))
Y = jnp.array([0, 1, 1, 0, 1])


def one_logit(x):
    return x @ ONE - 0.2


BASIS = jnp.zeros((5, 1, 6)).at[:, 0, 0].set(1.0)


@pytest.mark.parametrize(
    "use",
    [
        lambda f: gradients.input_gradients(f, X, Y, target="log_prob"),
        lambda f: gradients.input_gradients(f, X, target="logit_sum"),
        lambda f: attacks.pgd(f, X, Y, key=jax.random.key(0), eps_l2=1.0, steps=2),
        lambda f: evaluation.correct(f, X, Y),
        lambda f: evaluation.robustly_correct(f, X, Y, key=jax.random.key(0), eps_l2=1.0, steps=2),
        lambda f: robustness.manifold_robustness(f, X, BASIS, eps_l2=1.0, key=jax.random.key(0)),
        lambda f: robustness.relative_noise_robustness(f, X, X > 0.5, sigma=1.0, key=jax.random.key(0)),
    ],
)
def test_one_logit_is_refused_by_the_name_of_its_wrapper(use):
    said = "; wrap a model with one .sigmoid. logit in `wrappers.two_classes`"
    with pytest.raises(ValueError, match=r"two classes, got the shape \([15], 1\)" + said):
        use(one_logit)
    with pytest.raises(ValueError, match=r"logits of the shape \([15], classes\), got \([15],\)" + said):
        use(lambda x: one_logit(x)[:, 0])
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(jax.jit(lambda: use(wrappers.two_classes(one_logit)))()))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.gradient_norm, losses.smoothness, losses.adversarial])
def test_losses_of_one_logit_are_refused(loss):
    with pytest.raises(ValueError, match="two classes"):
        loss(one_logit, X, Y, jax.random.key(0), 0.1)


def test_a_sigmoid_is_a_softmax_of_two_classes():
    """d log p / d x = (y - sigmoid(f)) w, and the margin of y falls by eps |w| under the worst attack."""
    model = wrappers.two_classes(one_logit)
    f, w = np.asarray(one_logit(X))[:, 0], np.asarray(ONE)[:, 0]
    np.testing.assert_allclose(jax.jit(lambda x: jax.nn.softmax(model(x)))(X)[:, 1], expit(f), rtol=1e-12)
    gradient = jax.jit(lambda x: gradients.input_gradients(model, x, Y, target="log_prob"))(X)
    np.testing.assert_allclose(gradient, (np.asarray(Y) - expit(f))[:, None] * w, rtol=1e-10)
    given = {"key": jax.random.key(0), "steps": 10, "bounds": None}
    for eps in (0.05, 0.3):
        robust = jax.jit(lambda f, eps: evaluation.robustly_correct(f, X, Y, eps_l2=eps, **given))(
            wrappers.two_classes(jax.tree_util.Partial(one_logit)), eps
        )
        np.testing.assert_array_equal(robust, (2 * np.asarray(Y) - 1) * f > eps * np.linalg.norm(w))
    with pytest.raises(ValueError, match=r"one logit for each of 5 images, got the shape \(5, 2\)"):
        wrappers.two_classes(model)(X)


def test_a_model_of_standardised_images_is_attacked_in_pixels():
    """One Linf step of the wrapped model is std times that of the bare one, in a ball and in bounds of its units."""
    rng = np.random.default_rng(4)
    x, y, w = jnp.asarray(rng.uniform(size=(3, 4, 4, 2))), jnp.array([0, 1, 2]), jnp.asarray(rng.normal(size=(32, 3)))
    mean, std = np.array([0.4, 0.6]), np.array([0.2, 0.2])

    def bare(z):
        return jnp.tanh(z.reshape(3, -1) @ w)

    given = {"key": jax.random.key(0), "steps": 4}
    model = wrappers.normalized(bare, mean=mean, std=std)
    np.testing.assert_allclose(model(x), bare((x - mean[None, None, None]) / std[None, None, None]), rtol=1e-12)
    in_pixels = attacks.pgd(model, x, y, eps_linf=0.1, bounds=(0, 1), **given)
    bounds = ((0 - mean) / std, (1 - mean) / std)
    z = (x - mean[None, None, None]) / std[None, None, None]
    bare_delta = attacks.pgd(bare, z, y, eps_linf=0.5, bounds=bounds, **given)
    np.testing.assert_allclose(0.2 * bare_delta, in_pixels, atol=1e-12)
    for options, said in (
        ({"mean": 0.5, "std": [0.2, 0.0]}, r"`std` must be finite and above 0, got \[0.2, 0.0\]"),
        ({"mean": np.nan, "std": 1.0}, "`mean` must be finite, got nan"),
        ({"mean": np.zeros((1, 2)), "std": 1.0}, r"`mean` must be one number or one for each channel, .* \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=said):
            wrappers.normalized(bare, **options)
    with pytest.raises(ValueError, match="`mean` has 3 numbers for images of 2 channels"):
        wrappers.normalized(bare, mean=np.zeros(3), std=1.0)(x)
    with pytest.raises(ValueError, match="each of `bounds` must be one number or 2, one for each channel"):
        attacks.pgd(bare, z, y, eps_linf=0.5, bounds=(np.zeros(3), 1.0), **given)
    with pytest.raises(ValueError, match=r"inside `bounds` = \(0, 1\); for images that are standardised"):
        attacks.pgd(bare, z, y, eps_linf=0.5, bounds=(0, 1), **given)
