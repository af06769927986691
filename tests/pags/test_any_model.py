"""Every measure of a model of any library equals that of the same network as a plain function; and it may be debugged.

One network of two layers, written in plain JAX, flax.linen, flax.nnx, equinox, and in NumPy behind
`jax.pure_callback` without `vmap_method`, which JAX cannot map, with a derivative by hand.
"""

import inspect
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pags_jax import (
    alignment,
    attacks,
    evaluation,
    generation,
    gradients,
    likelihood,
    models,
    robustness,
    scores,
    smoothing,
    training,
    wrappers,
)

RNG = np.random.default_rng(0)
W, V = (RNG.normal(size=shape).astype(np.float32) for shape in ((12, 6), (6, 4)))
X = jnp.asarray(RNG.uniform(size=(3, 2, 2, 3)), jnp.float32)
Y = jnp.array([0, 3, 1], jnp.int32)
BASIS = jnp.asarray(np.linalg.qr(RNG.normal(size=(3, 12, 4)))[0].swapaxes(1, 2).reshape(3, 4, 2, 2, 3), jnp.float32)
NOISE = jnp.asarray(RNG.normal(size=(2, *X.shape)), jnp.float32)
KEY = jax.random.key(0)


def plain(x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ W) @ V


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        hidden = nn.BatchNorm(use_running_average=not train, epsilon=0.0)(nn.Dense(6)(x.reshape(x.shape[0], -1)))
        return nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(jnp.tanh(hidden)))


def linen_variables():
    variables = Linen().init(KEY, X)
    variables["params"]["Dense_0"]["kernel"], variables["params"]["Dense_1"]["kernel"] = W, V
    return variables


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(12, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(6, epsilon=0.0, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.first.kernel[...], self.last.kernel[...] = jnp.asarray(W), jnp.asarray(V)

    def __call__(self, x):
        return self.last(self.drop(jnp.tanh(self.norm(self.first(x.reshape(x.shape[0], -1))))))


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __call__(self, x, state, key=None):
        hidden, state = self.norm(self.first(x.reshape(-1)), state)
        return self.last(self.drop(jnp.tanh(hidden), key=key)), state


def equinox_model(*, inference):
    """A function of images; equinox's modules are those of one image, and batch statistics name the batch's axis."""

    def make():
        layers = [eqx.nn.Linear(*size, use_bias=False, key=KEY) for size in ((12, 6), (6, 4))]
        first, last = (
            eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(weight.T))
            for layer, weight in zip(layers, (W, V), strict=True)
        )
        norm = eqx.nn.BatchNorm(6, "batch", eps=0.0, channelwise_affine=False, mode="ema", dtype=jnp.float32)
        return Equinox(first, norm, eqx.nn.Dropout(0.0), last)

    model, state = eqx.nn.make_with_state(make)()
    if inference:
        model = eqx.nn.inference_mode(model)
        state = state.set(model.norm.ema_first_time_index, jnp.array(False))
        state = state.set(model.norm.ema_state_index, (jnp.zeros(6, jnp.float32), jnp.ones(6, jnp.float32)))
    return lambda x: jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[0]


def callback():
    """NumPy, which JAX sees neither the values nor the derivative of."""

    def outside(function, shape, *arrays):
        return jax.pure_callback(function, jax.ShapeDtypeStruct(shape, jnp.float32), *arrays)

    def forward(x):
        return np.tanh(np.asarray(x).reshape(x.shape[0], -1) @ W) @ V

    def backward(x, by_logit):
        hidden = np.tanh(np.asarray(x).reshape(x.shape[0], -1) @ W)
        return (((np.asarray(by_logit) @ V.T) * (1 - hidden**2)) @ W.T).reshape(x.shape)

    @jax.custom_vjp
    def model(x):
        return outside(forward, (x.shape[0], 4), x)

    model.defvjp(lambda x: (model(x), x), lambda x, by_logit: (outside(backward, x.shape, x, by_logit),))
    return model


def in_evaluation(module):
    module.eval()
    return lambda x: module(x)


MODELS = {
    "linen": lambda: models.evaluator(Linen(), linen_variables()),
    "nnx": lambda: in_evaluation(Nnx(nnx.Rngs(0))),
    "equinox": lambda: equinox_model(inference=True),
    "callback": callback,
}


def measures(f, x, y):
    """Every measure that a model goes into."""
    found: dict[str, Any] = {
        target: gradients.input_gradients(f, x, y, target=target)
        for target in ("logit_sum", "logit", "log_prob", "loss", "log_sum_exp")
    }
    found["smoothed"] = gradients.smoothed_gradients(f, x, y, target="logit", key=KEY, sigma=0.1, samples=2)
    found["integrated"] = gradients.integrated_gradients(f, x, y, target="logit", steps=2, chunk_size=2)
    found["attack"] = attacks.pgd(f, x, y, key=KEY, eps_l2=0.5, steps=2)
    found["on"], found["off"] = robustness.manifold_robustness(
        f, x, BASIS, eps_l2=(0.1, 1.0), noise=NOISE, bounds=(-1, 2), chunk_size=2
    )
    found["noise"] = robustness.relative_noise_robustness(f, x, X[..., 0] > 0.5, sigma=0.3, key=KEY, draws=2)
    found["share"] = robustness.off_manifold_share_by_noise(
        lambda x: likelihood.log_prob(f(x), y), x, BASIS, sigma=0.1, noise=NOISE
    )
    made = generation.counterfactual(f, x, (y + 1) % 4, eps_l2=0.3, steps=2, unroll=True)
    found["generated"], found["generated log_prob"] = made.images, made.log_prob
    known = jnp.arange(12).reshape(1, 2, 2, 3) % 2 == 0
    found["in-painted"] = generation.inpaint(f, x, known, y, eps_linf=0.2, steps=2).images
    found["counts"] = smoothing.class_counts(f, x, key=KEY, sigma=0.3, samples=8, draws_at_once=3)
    smooth = wrappers.smoothed(f, key=KEY, sigma=0.2, samples=2)
    found["of the smoothed"] = gradients.input_gradients(smooth, x, y, target="log_prob")
    found["cosine"] = alignment.cosine(found["loss"], x - 0.4)
    denoise = scores.preconditioned(lambda x, _: (f(x) @ V.T @ W.T).reshape(x.shape), sigma_data=0.5)
    found["score"] = scores.score(denoise, x, sigma_pm1=0.5)
    return found


@pytest.fixture(scope="module")
def expected():
    return jax.jit(lambda x, y: measures(plain, x, y))(X, Y)


def assert_equal(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_the_plain_functions_gradients_are_those_by_hand(expected):
    w, v, x = (np.asarray(a, float) for a in (W, V, X.reshape(3, -1)))
    hidden = np.tanh(x @ w)
    p = np.exp(hidden @ v)
    p /= p.sum(1, keepdims=True)
    chosen = np.eye(4)[Y]
    by_logits = {"logit_sum": np.ones((3, 4)), "logit": chosen, "loss": p - chosen, "log_sum_exp": p}
    for target, by_logit in by_logits.items():
        by_image = ((by_logit @ v.T) * (1 - hidden**2)) @ w.T
        np.testing.assert_allclose(expected[target].reshape(3, -1), by_image, rtol=1e-4, atol=1e-5)


LIBRARIES = [  # `make slow` has flax.nnx without jit, on every change.
    "linen",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("callback", "equinox")),
    pytest.param("nnx", marks=pytest.mark.weekly),
]


@pytest.mark.parametrize("library", LIBRARIES)
def test_under_jit(library, expected):
    model = MODELS[library]()
    assert_equal(jax.jit(lambda x, y: measures(model, x, y))(X, Y), expected)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["plain", "nnx", "callback"])
def test_without_jit(library, expected):
    """Eager calls with `jax.disable_jit`, as one debugs, on NumPy's arrays."""
    model = plain if library == "plain" else MODELS[library]()
    with jax.disable_jit():
        assert_equal(measures(model, X, Y), expected)


# ---------------------------------------------------------------------------------------------- left in training
def linen_in_training(collection):
    return lambda x: Linen().apply(linen_variables(), x, train=True, rngs={"dropout": KEY}, mutable=collection)[0]


def only_dropout(x):
    return nn.Dropout(0.5, deterministic=False).apply({}, plain(x), rngs={"dropout": KEY})


TRAINING = {
    "linen": lambda: linen_in_training(["batch_stats"]),
    "linen's dropout": lambda: only_dropout,
    "nnx": lambda: Nnx(nnx.Rngs(0)),
    "equinox": lambda: equinox_model(inference=False),
}


@pytest.mark.parametrize("library", TRAINING)
def test_a_model_in_training_is_refused(library):
    model = TRAINING[library]()
    for measure in (
        lambda: gradients.input_gradients(model, X, Y, target="loss"),
        lambda: gradients.smoothed_gradients(model, X, Y, target="loss", key=KEY, sigma=0.1, samples=2),
        lambda: robustness.manifold_robustness(model, X, BASIS, eps_l2=0.1, noise=NOISE),
        lambda: robustness.relative_noise_robustness(model, X, X > 0.5, sigma=0.1, noise=NOISE),
        lambda: generation.counterfactual(model, X, Y, eps_l2=0.2, steps=1),
        lambda: smoothing.certify(model, X, key=KEY, sigma=0.1),
        lambda: evaluation.robustly_correct(model, X, Y, key=KEY, eps_l2=0.2, steps=1),
    ):
        with pytest.raises(ValueError, match=r"put it into evaluation mode: `model\.eval\(\)`"):
            measure()


def test_confident_offset_and_not_finite_models_are_not_taken_for_ones_in_training():
    for model in (
        lambda x: 1e6 + plain(x),
        lambda x: 1e4 * plain(x),
        lambda x: plain(x) * jnp.nan,
        lambda x: plain(x.astype(jnp.bfloat16).astype(jnp.float32)),
        lambda x: jnp.zeros((len(x), 4), x.dtype),
    ):
        gradients.input_gradients(model, X, Y, target="loss")


def test_our_models_run_without_jit():
    """Batch normalisation in training and a derivative by parameters need all of the package's own primitives."""
    model, x = models.ResNet(classes=3, blocks=(1,), width=0.05), jnp.asarray(X[:, :, :, :1])
    variables = models.init(model, x, key=KEY)

    def slope(variables, x):
        def total(params, x):
            logits, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(logits**2)

        return jax.grad(total, (0, 1))(variables["params"], x)

    expected = jax.jit(slope)(variables, x)
    with jax.disable_jit():
        found = slope(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), found, expected)


def test_other_linen_modules_train():
    """Without a flag of training, with dropout and statistics, with another flag."""

    class NoFlag(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(x.reshape(x.shape[0], -1))

    class Deterministic(nn.Module):
        @nn.compact
        def __call__(self, x, *, deterministic):
            return nn.Dense(4)(nn.Dropout(0.5, deterministic=deterministic)(x.reshape(x.shape[0], -1)))

    x, y = RNG.integers(256, size=(4, 2, 2, 3), dtype=np.uint8), jnp.zeros(4, jnp.int32)
    step = jax.jit(training.step, static_argnames="task")
    for module in (NoFlag(), Linen(), Deterministic()):
        task = training.Task(module, batch_size=4)
        state = training.init(task, x, key=KEY)
        moved, metrics = step(task, state, x, y, training.Hyper(0.0, 0.1, jnp.array([99, 99])))
        assert np.isfinite(metrics.loss)
        variables = {"params": moved.params, "batch_stats": moved.statistics}
        logits = jax.jit(models.evaluator(module, variables))(
            X
        )  # which is not in training, or dropout would need a key
        assert logits.shape == (3, 4)
    with pytest.raises(ValueError, match=r"must be a flax\.linen module, got Nnx; .* is trained by its own loop"):
        inspect.unwrap(models.init)(Nnx(nnx.Rngs(0)), x, key=KEY)
