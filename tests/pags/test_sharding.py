"""Images on eight devices: training sees whole batches, and every measure is what it is on one device."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pags_jax import alignment, attacks, augmentation, losses, models, robustness, training
from pags_jax.gradients import input_gradients
from pags_jax.models import layers

CLASSES = 3


def eight():
    return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def images(count=32, size=8):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return jnp.asarray(x), jnp.asarray(draw.integers(0, CLASSES, count), jnp.int32)


def assert_close(got, wanted, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


class Small(nn.Module):
    """A convolution under batch normalisation."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = layers.BatchNorm(use_running_average=not train)(layers.conv(8, (3, 3))(x))
        return layers.dense(CLASSES)(nn.relu(x).mean((1, 2)))


def fresh(task, x):
    """A state in float64, so that only the order of sums differs."""
    state = training.init(task, x[:1], key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state)


LOSSES = {
    "gradient_norm": losses.gradient_norm,
    "smoothness": losses.smoothness,
    "adversarial": functools.partial(losses.adversarial, steps=2),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "driver"),
    [  # Each driver once; the other losses reach their gradients the same way.
        ("gradient_norm", "steps"), ("adversarial", "scan"),
        *(pytest.param(loss, "scan", marks=pytest.mark.weekly) for loss in ("gradient_norm", "smoothness")),
    ],
)  # fmt: skip
def test_an_epoch_with_batch_statistics_of_the_whole_batch(loss, driver):
    task = training.Task(Small(), LOSSES[loss], augmentation.crop_and_flip, batch_size=16)
    hyper = training.Hyper(0.1, 0.01, training.milestones(4, 2))
    placed = []

    def epoch(place):
        x, y = images()
        state = fresh(task, x)
        if driver == "scan":
            state, metrics = training.scan_epoch(task, state, x, y, hyper, place=place)
            return jax.device_get((state.params, state.statistics, metrics))
        every = training.steps(task, state, x, y, hyper, place=place)
        return [jax.device_get((new.params, metrics)) for new, metrics in every]

    def over_all(rows):
        placed.append(rows)
        return jax.device_put(rows, P(None, "data"))

    alone = epoch(lambda rows: rows)
    with jax.set_mesh(eight()):
        spread = epoch(over_all)
    assert len(placed) == 1
    assert_close(spread, alone)


def test_a_step_on_a_spread_batch_stays_spread():
    task = training.Task(Small(), losses.gradient_norm, batch_size=16)
    with jax.set_mesh(eight()):
        x, y = images()
        state = fresh(task, x)
        batch = jax.device_put(jnp.arange(16), P("data"))
        assert x[batch].sharding.spec == P("data")
        hyper = training.Hyper(0.1, 0.01, training.milestones(4, 2))
        program = jax.jit(training.step, static_argnames="task").lower(task, state, x[batch], y[batch], hyper).compile()
    text = program.as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert "f64[2,8,8,3]" in text  # Two of the sixteen images on each of eight devices.


def measured(x, y, basis, noise, key):
    """Every measure of a fixed classifier, images first."""
    model = models.create("lenet", classes=CLASSES, width=0.25, dtype=jnp.float64)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model.init(jax.random.key(1), x[:1]))
    apply_fn = models.evaluator(model, variables)
    gradients = {target: input_gradients(apply_fn, x, y, target=target) for target in ("log_prob", "logit_sum")}
    return {
        "gradients": gradients,
        "attack": attacks.pgd(apply_fn, x, y, key=key, eps_l2=1.0, steps=3),
        "deviations": robustness.manifold_robustness(apply_fn, x, basis, noise=noise, eps_l2=0.5),
        "share": robustness.off_manifold_share(gradients["log_prob"], basis),
        "cosine": alignment.cosine(gradients["log_prob"], gradients["logit_sum"]),
    }


@pytest.mark.slow
def test_gradients_attacks_and_measures():
    x, y = images(size=28)
    x = x[..., :1].astype(jnp.float64) / 255
    noise = jax.random.normal(jax.random.key(2), (2, *x.shape))
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(4), (32, 784, 4)))[0].mT.reshape(32, 4, 28, 28, 1)
    alone = jax.device_get(jax.jit(measured)(x, y, basis, noise, jax.random.key(3)))
    with jax.set_mesh(eight()):
        placed = jax.device_put(x, P("data"))
        spread = jax.jit(measured)(placed, y, basis, noise, jax.random.key(3))
        assert spread["gradients"]["log_prob"].sharding.spec == P("data")
        spread = jax.device_get(spread)
    assert_close(spread, alone, 1e-8)
