"""Adam and its average against NumPy, the loss against its twin, and a trained score against the closed form."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import augmentation, generative, models, scores, training
from pags_jax.images import to_float

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
Y = RNG.integers(0, 3, 48).astype(np.int32)
UNET = models.UNet(channels=1, classes=3, widths=(8,), blocks=1)
CODER = models.Autoencoder((8, 8, 1), latent=6, widths=(8, 12))


def drawn(model, seed=0):
    """Variables drawn by NumPy, which takes a fraction of the time that compiling `init` does."""
    shape = model.shape if isinstance(model, models.Autoencoder) else (8, 8, 1)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim == 1:
            values = (path[-1].key == "scale") + 0.1 * rng.normal(size=leaf.shape)
        else:
            values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), x))


def start_of(model):
    return generative.fresh(drawn(model)["params"], key=jax.random.key(7))


# ------------------------------------------------------------------------------------------------ the optimiser
def test_updates_equal_adam_by_hand_and_the_average_its_closed_form():
    hyper = generative.Hyper(learning_rate=0.3, warm_up=3, total_steps=8, decay=0.7)
    w = RNG.normal(size=5)
    state = generative.fresh({"w": jnp.asarray(w)}, key=jax.random.key(0))
    m, v, history = 0.0, 0.0, []
    for t in range(1, 7):
        g = RNG.normal(size=5)
        state = generative.update(state, {"w": jnp.asarray(g)}, hyper)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 0.3 * min(1, t / 3) * 0.5 * (1 + np.cos(np.pi * (t - 1) / 8))
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        history.append(w)
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        shares = 0.7 ** np.arange(t - 1, -1, -1)
        expected = (shares[:, None] * np.array(history)).sum(0) / shares.sum()
        np.testing.assert_allclose(state.average["w"], expected, rtol=1e-5)
    assert int(state.step) == 6


def test_a_constant_rate_stays_after_the_warm_up():
    rates = [generative.learning_rate(generative.Hyper(0.2, warm_up=4), step) for step in (0, 1, 3, 4, 10**6)]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.2, 0.2, 0.2], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- the losses
def test_labels_are_hidden_with_the_stated_probability():
    y = jnp.arange(20_000) % 7
    hidden = np.asarray(generative.hide_labels(y, key=jax.random.key(0), probability=0.15, null=7))
    assert abs((hidden == 7).mean() - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 20_000)
    np.testing.assert_array_equal(hidden[hidden != 7], np.asarray(y)[hidden != 7])
    rates = [(hidden[np.asarray(y) == k] == 7).mean() for k in range(7)]
    assert max(rates) - min(rates) < 0.05
    np.testing.assert_array_equal(generative.hide_labels(y, key=jax.random.key(0), probability=0.0, null=7), y)


class Scale(NamedTuple):
    """A network that multiplies by a number of each class and adds the level: its loss is easy by hand."""

    classes: int = 2
    sigma_data: float = 0.5

    def apply(self, variables, x, c_noise, labels):
        return variables["by_class"][labels][:, None, None, None] * x + c_noise[:, None, None, None]


def test_the_denoising_loss_equals_its_numpy_twin_at_the_draws():
    x, y, key = RNG.random((6, 2, 3, 1)), np.array([0, 1, 1, 0, 1, 0]), jax.random.key(4)
    by_class = np.array([0.3, -0.2, 0.7])
    loss = generative.denoising(
        Scale(), {"by_class": jnp.asarray(by_class)}, jnp.asarray(x), jnp.asarray(y), key, unlabelled=0.5
    )
    for_labels, for_levels, for_noise = jax.random.split(key, 3)
    labels = np.where(np.asarray(jax.random.bernoulli(for_labels, 0.5, (6,))), 2, y)
    assert {2} < set(labels)
    sigma = np.exp(-1.2 + 1.2 * np.asarray(jax.random.normal(for_levels, (6,))))
    noise = np.asarray(jax.random.normal(for_noise, x.shape))
    values = []
    for image, label, s, u in zip(2 * x - 1, labels, sigma, noise, strict=True):
        noisy, total = image + s * u, s**2 + 0.25
        network = by_class[label] * noisy / np.sqrt(total) + np.log(s) / 4
        denoised = 0.25 / total * noisy + s * 0.5 / np.sqrt(total) * network
        values.append(total / (s * 0.5) ** 2 * np.mean((denoised - image) ** 2))
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-11)


def test_the_reconstruction_loss_is_the_mean_squared_error():
    x = to_float(X[:5])
    variables = drawn(CODER)
    out = jax.jit(lambda x: models.decoder(CODER, variables)(models.encoder(CODER, variables)(x)))(x)
    expected = np.mean((np.asarray(out, float) - np.asarray(x, float)) ** 2)
    assert float(jax.jit(partial(generative.reconstruction, CODER))(variables, x)) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------------ the step
def run(task, state, count, hyper):
    step = jax.jit(generative.step, static_argnames="task")
    losses = []
    for _ in range(count):
        batches = training.order(task, state, len(X))
        rows = batches[int(state.step) % len(batches)]
        state, metrics = step(task, state, X[rows], Y[rows], hyper)
        losses.append(float(metrics.loss))
    return state, losses


HYPER = generative.Hyper(*map(jnp.float32, (3e-3, 5, jnp.inf, 0.9)))


@pytest.mark.slow
def test_an_interrupted_run_replays_the_rest_and_drivers_agree():
    task = training.Task(UNET, generative.denoising, augmentation.flip, batch_size=16)
    start = start_of(UNET)
    whole, losses = run(task, start, 5, HYPER)
    half, _ = run(task, start, 2, HYPER)
    resumed, _ = run(task, jax.tree.map(jnp.copy, half), 3, HYPER)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert (a == b).all()
    assert len(set(losses)) == 5
    epoch, metrics = training.scan_epoch(task, start, X, Y, HYPER, one_step=generative.step)
    np.testing.assert_allclose(metrics.loss, losses[:3], rtol=1e-4)
    assert int(epoch.step) == 3


def test_the_step_sees_augmented_images_and_says_the_norm_of_its_gradient():
    def loss(model, variables, x, y, key):
        return generative.reconstruction(model, variables, x)

    task = training.Task(CODER, loss, lambda key, x: 1 - x, batch_size=16)
    state = start_of(CODER)
    after, metrics = jax.jit(generative.step, static_argnames="task")(task, state, X[:16], Y[:16], HYPER)
    x = 1 - to_float(X[:16])
    both = jax.jit(jax.value_and_grad(lambda params: generative.reconstruction(CODER, {"params": params}, x)))
    value, gradients = both(state.params)
    assert float(metrics.loss) == pytest.approx(float(value), rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.asarray(g, float) ** 2) for g in jax.tree.leaves(gradients)))
    assert float(metrics.grad_norm) == pytest.approx(norm, rel=1e-4)
    expected = jax.jit(generative.update)(state, gradients, HYPER)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, after.average))} == {jnp.dtype("float32")}


# ---------------------------------------------------------------------------------------------- the autoencoder
def test_an_autoencoder_learns_to_reconstruct():
    task = training.Task(CODER, generative.reconstruction, batch_size=16)
    state = start_of(CODER)
    _, losses = run(task, state, 60, generative.Hyper(*map(jnp.float32, (1e-2, 5, jnp.inf, 0.9))))
    variance = float(np.var(X.reshape(48, -1) / 255, axis=0).mean())
    assert losses[-1] < 0.9 * variance < losses[0]


def test_the_cifar_decoder_has_the_stated_size():
    model = models.Autoencoder((32, 32, 3), latent=128, widths=(64, 144, 320))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    by_hand = (
        (129 * 4 * 4 * 320)
        + sum(2 * (9 * width + 1) * width for width in (320, 144, 64))
        + (321 * 4 * 144 + 145 * 4 * 64)
        + (9 * 64 + 1) * 12
    )
    assert models.count_parameters({"params": variables["params"]["decoder"]}) == by_hand
    assert round(by_hand / 1e6, 1) == 3.2
    z = jax.ShapeDtypeStruct((2, 128), jnp.float32)
    decoded = jax.eval_shape(lambda variables, z: models.decoder(model, variables)(z), variables, z)
    assert decoded.shape == (2, 32, 32, 3)


def test_decoded_images_are_smooth_in_the_code_and_in_0_1():
    """The Jacobian along a line has no kink: its second differences shrink with the square of the step."""
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), drawn(CODER))
    decode = jax.jit(models.decoder(CODER, variables))
    z, direction = (jnp.asarray(RNG.normal(size=(1, 6))) for _ in range(2))
    assert 0 < decode(5 * z).min() < decode(5 * z).max() < 1

    @jax.jit
    def slope(t):
        return jax.jvp(lambda t: decode(z + t * direction), (t,), (jnp.ones(()),))[1]

    def bend(h):
        steps = jnp.asarray(h)
        return np.abs(slope(steps) - 2 * slope(0 * steps) + slope(-steps)).max()

    assert bend(1e-2) / bend(5e-3) == pytest.approx(4, rel=0.05)


def test_odd_sizes_are_kept_and_others_refused():
    model = models.Autoencoder((9, 7, 2), latent=3, widths=(4, 4))
    x = jnp.ones((2, 9, 7, 2), jnp.float32)
    variables = drawn(model)
    assert jax.eval_shape(model.apply, variables, x).shape == x.shape
    with pytest.raises(ValueError, match=r"for images of the shape \(9, 7, 2\), got \(9, 9, 2\)"):
        models.encoder(model, variables)(jnp.ones((2, 9, 9, 2), jnp.float32))
    with pytest.raises(ValueError, match=r"latent codes of size 3, got the shape \(2, 4\)"):
        models.decoder(model, variables)(jnp.ones((2, 4), jnp.float32))


def test_decoders_of_other_variables_share_a_program():
    traces = []

    @jax.jit
    def decoded(decode, z):
        traces.append(1)
        return decode(z)

    for k in range(3):
        again = models.Autoencoder((8, 8, 1), latent=6, widths=(8, 12))
        decoded(models.decoder(again, drawn(again, k)), jnp.ones((2, 6), jnp.float32))
    assert len(traces) == 1


# -------------------------------------------------------------------------------------- trained on a known truth
class Perceptron(nn.Module):
    """A network for points, called as a UNet."""

    classes: int = 2
    sigma_data: float = 0.5

    @nn.compact
    def __call__(self, x, c_noise=0.0, labels=None):
        n = x.shape[0]
        labels = jnp.broadcast_to(jnp.asarray(self.classes if labels is None else labels), (n,))
        noise = jnp.broadcast_to(jnp.asarray(c_noise, x.dtype), (n,))[:, None]
        known = jax.nn.one_hot(labels, self.classes + 1, dtype=x.dtype)
        hidden = jnp.concatenate([x.reshape(n, -1), noise, known], axis=1)
        for _ in range(3):
            hidden = nn.silu(nn.Dense(64)(hidden))
        return nn.Dense(x[0].size)(hidden).reshape(x.shape)


MEANS = np.array([[-0.6, -0.2], [0.5, 0.5], [0.4, -0.6]])
CLASS_OF = np.array([0, 1, 1])
DEVIATION = 0.12


def closed_form(points, sigma, chosen):
    """The score of the equally weighted components ``chosen`` under noise, in NumPy."""
    variance = DEVIATION**2 + sigma**2
    apart = MEANS[chosen] - points[:, None]
    logits = -0.5 * (apart**2).sum(2) / variance
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return (shares[:, :, None] * apart).sum(1) / variance


def draw_points(key, n):
    """Points of the mixture as images of one pixel and two channels, in [-1, 1], and their classes."""
    for_part, for_noise = jax.random.split(key)
    part = jax.random.randint(for_part, (n,), 0, 3)
    points = jnp.asarray(MEANS)[part] + DEVIATION * jax.random.normal(for_noise, (n, 2))
    return points.astype(jnp.float32).reshape(n, 1, 1, 2), jnp.asarray(CLASS_OF)[part]


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_trained_scores_approach_the_closed_form_of_a_mixture():
    """Conditional, unconditional and Bayes gradients; errors are root mean squares relative to the truth's."""
    model, steps = Perceptron(), 1500
    hyper = generative.Hyper(*map(jnp.float32, (1e-2, 50, steps, 0.98)))

    def body(state, _):
        for_data, for_loss = jax.random.split(jax.random.fold_in(state.key, state.step))
        x, y = draw_points(for_data, 512)

        def loss(params):
            return generative.denoising(model, {"params": params}, (x + 1) / 2, y, for_loss, unlabelled=0.5)

        return generative.update(state, jax.grad(loss)(state.params), hyper), None

    x, y = draw_points(jax.random.key(9), 2000)
    start = generative.fresh(jax.jit(model.init)(jax.random.key(0), x)["params"], key=jax.random.key(1))
    end = jax.jit(lambda state: jax.lax.scan(body, state, length=steps)[0])(start)
    noise, known = jax.random.normal(jax.random.key(3), x.shape, x.dtype), np.asarray(y) == 1

    @jax.jit
    def gradients(params, x, sigma):
        denoisers = [scores.denoiser(model, {"params": params}, labels) for labels in (1, None)]
        both = [scores.score(denoise, x, sigma_pm1=sigma) for denoise in denoisers]
        return [both[0], both[1], scores.bayes_gradient(*denoisers, x, sigma_pm1=sigma)]

    for sigma in (0.3, 0.6, 1.0):
        noisy = x + jnp.float32(sigma) * noise
        points = np.asarray(noisy, float).reshape(-1, 2)
        truth = [closed_form(points, sigma, chosen) for chosen in (np.array([1, 2]), np.arange(3))]
        truth.append(truth[0] - truth[1])

        def errors(params, noisy=noisy, sigma=sigma, truth=truth):
            found = [np.asarray(g, float).reshape(-1, 2) for g in gradients(params, (noisy + 1) / 2, sigma)]
            # What depends on the class is learnt where there is data of it.
            rows = (known, slice(None), known)
            return [
                np.linalg.norm((f - t)[r]) / np.linalg.norm(t[r]) for f, t, r in zip(found, truth, rows, strict=True)
            ]

        before, after = errors(start.params), errors(end.average)
        assert max(after[:2]) < 0.08
        assert after[2] < 0.2
        assert (np.array(after) < np.array(before) / 3).all()
