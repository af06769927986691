"""The training step against PyTorch's SGD by hand, and what an epoch, an interruption and an attack may change."""

import inspect
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import alignment, attacks, augmentation, gradients, losses, models, training
from pags_jax.images import averaged, to_float

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
Y = RNG.integers(0, 3, 50).astype(np.int32)


class Linear(nn.Module):
    """Logits ``W x``: small enough to train by hand."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.Dense(3, use_bias=False)(x.reshape(x.shape[0], -1))


class Normalised(nn.Module):
    """Batch normalisation of the images themselves, so that running statistics are those of the inputs."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def hyper(**options):
    return training.Hyper(**{"strength": 0.0, "learning_rate": 0.1, "milestones": jnp.array([3, 4]), **options})


def run(task, state, count, options=None):
    """``count`` steps from ``state``, the batches of its epochs one after the other; state and last metrics."""
    step = jax.jit(training.step, static_argnames="task")
    metrics = None
    for _ in range(count):
        rows = training.order(task, state, len(X))
        batch = rows[int(state.step) % len(rows)]
        state, metrics = step(task, state, X[batch], Y[batch], options or hyper())
    return state, metrics


@pytest.mark.parametrize("clip", [np.inf, 0.2])
def test_steps_equal_sgd_by_hand(clip):
    """Six steps across both milestones, with weight decay and momentum, as PyTorch defines them."""
    task = training.Task(Linear(), batch_size=20)
    state = training.init(task, X, key=jax.random.key(0))
    state = state._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state.params))
    state = state._replace(optimizer=jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state.optimizer))
    weights, buffer = np.asarray(state.params["Dense_0"]["kernel"]), 0.0
    options = hyper(learning_rate=0.5, momentum=0.8, weight_decay=0.01, clip=clip)
    shortened = 0
    for step in range(6):
        rows = np.asarray(training.order(task, state, len(X)))[step % 2]
        x, onehot = X[rows].reshape(20, -1).astype(np.float32) / 255, np.eye(3)[Y[rows]]
        logits = x.astype(float) @ weights
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gradient = x.T.astype(float) @ (p - onehot) / 20
        state, metrics = run(task, state, 1, options)
        assert float(metrics.loss) == pytest.approx(-np.mean(np.log(p[onehot == 1])), rel=1e-6)
        assert float(metrics.accuracy) == pytest.approx(np.mean(logits.argmax(axis=1) == Y[rows]))
        assert float(metrics.grad_norm) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        shortened += np.linalg.norm(gradient) > clip
        gradient *= min(1, clip / np.linalg.norm(gradient))
        buffer = 0.8 * buffer + gradient + 0.01 * weights
        weights = weights - 0.5 * (1, 1, 1, 0.1, 0.01, 0.01)[step] * buffer
        np.testing.assert_allclose(state.params["Dense_0"]["kernel"], weights, rtol=1e-5, atol=1e-8)
    assert (shortened > 0) == (clip < 1)


def test_p8_every_epoch_is_a_new_permutation_of_whole_batches():
    task = training.Task(Linear(), batch_size=16)
    state = training.init(task, X, key=jax.random.key(0))
    orders = [np.asarray(training.order(task, state._replace(step=jnp.int32(step)), len(X))) for step in (0, 2, 3, 6)]
    for rows in orders:
        assert rows.shape == (3, 16)
        assert len(np.unique(rows)) == 48
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[2], orders[3])
    with pytest.raises(ValueError, match="a batch of 64 needs as many images, got 50"):
        training.steps_per_epoch(training.Task(Linear(), batch_size=64), 50)


def test_p6_p7_an_attack_changes_neither_statistics_nor_gradients():
    """P6 and P7: the step is that of plain training on the attacked images."""
    loss = partial(losses.adversarial, steps=3)
    task = training.Task(Normalised(), loss, batch_size=20)
    state = training.init(task, X, key=jax.random.key(0))
    after, _ = run(task, state, 1, hyper(strength=2.0))

    rows = training.order(task, state, len(X))[0]
    x, y = to_float(X[rows]), jnp.asarray(Y[rows])
    variables = {"params": state.params, "batch_stats": state.statistics}

    def forward(params, x):
        return task.model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])

    for_steps, _ = jax.random.split(state.key)
    _, for_loss = jax.random.split(jax.random.fold_in(for_steps, 0))
    delta = jax.jit(partial(attacks.pgd, lambda x: forward(state.params, x)[0], key=for_loss, eps_l2=2.0, steps=3))(
        x, y
    )
    assert float(jnp.abs(delta).max()) > 0.1
    mean = np.asarray(x + delta, float).mean((0, 1, 2))
    np.testing.assert_allclose(after.statistics["BatchNorm_0"]["mean"], 0.1 * mean, rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda params: losses.cross_entropy(lambda x: forward(params, x)[0], x + delta, y)))(
        state.params
    )
    moved = jax.tree.map(lambda old, g: old - 0.1 * (g + 5e-4 * old), state.params, gradient)
    for found, expected in zip(jax.tree.leaves(after.params), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_frozen_model_is_trained_as_it_is_used():
    """Where batch statistics couple images, the gradient in training is another one, and may be aligned without it."""

    def score(x, labels):
        return jnp.sin(3 * x + labels[:, None, None, None].astype(x.dtype))

    class Centred(nn.Module):
        """In training the mean of the batch is subtracted, so that no image moves the sum of the logits."""

        @nn.compact
        def __call__(self, x, *, train: bool):
            x = nn.Dense(3)(jnp.tanh(nn.Dense(4)(x.reshape(x.shape[0], -1))))
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

    cosines = {}
    for frozen in (False, True):
        loss = partial(losses.score_alignment, score=score)
        task = training.Task(Centred(), loss, batch_size=50, frozen=frozen)
        state = training.init(task, X, key=jax.random.key(0))
        trained, _ = run(
            task, state, 100, hyper(strength=3.0, milestones=jnp.array([1000]), learning_rate=0.02, clip=1.0)
        )
        model = models.evaluator(task.model, {"params": trained.params, "batch_stats": trained.statistics})
        x = to_float(X)
        gradient = jax.jit(partial(gradients.input_gradients, model, target="logit"))(x, jnp.asarray(Y))
        cosines[frozen] = float(jax.jit(lambda g, x, y: alignment.cosine(g, score(x, y)).mean())(gradient, x, Y))
        same = jax.tree.map(np.array_equal, trained.statistics, state.statistics)
        assert all(jax.tree.leaves(same)) == frozen
    assert cosines[True] > cosines[False] + 0.2, cosines
    accuracy = np.mean(np.asarray(jnp.argmax(model(x), -1)) == Y)  # What the last step saw, and what is used, agree.
    _, metrics = run(task, trained, 1, hyper(learning_rate=0.0))
    assert float(metrics.accuracy) == pytest.approx(accuracy)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.smoothness, losses.randomized_smoothing])
def test_an_interrupted_run_replays_the_rest(loss):
    task = training.Task(Normalised(), loss, augmentation.crop_and_flip, batch_size=16)
    options = hyper(strength=0.1)
    start = training.init(task, X, key=jax.random.key(0))
    whole, _ = run(task, start, 7, options)
    half, _ = run(task, start, 4, options)
    resumed, _ = run(task, jax.tree.map(jnp.copy, half), 3, options)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert (a == b).all()


def test_training_to_the_end_is_every_step_of_every_epoch():
    task = training.Task(Linear(), losses.cross_entropy, batch_size=16)
    found = training.train(task, X, Y, hyper(), epochs=2, key=jax.random.key(0))
    per_epoch = training.steps_per_epoch(task, len(X))
    wanted, _ = run(task, training.init(task, X, key=jax.random.key(0)), 2 * per_epoch)
    assert int(found.step) == 2 * per_epoch
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(wanted.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_pixels_are_averaged_two_by_two():
    rows = averaged(X)
    assert rows.shape == (50, 4)
    np.testing.assert_allclose(rows[3, 1], X[3, :2, 2:, 0].astype(float).mean() / 255)


def test_a_sweep_compiles_one_step():
    traces = []

    def counted(*arguments, **options):
        traces.append(1)
        return losses.gradient_norm(*arguments, **options)

    task = training.Task(Linear(), counted, batch_size=10)
    step = jax.jit(training.step, static_argnames="task")
    for strength in np.logspace(-5, 2, 8):
        state = training.init(task, X, key=jax.random.key(0))
        values = hyper(strength=strength, learning_rate=0.1 / (1 + strength), milestones=jnp.array([int(strength), 9]))
        step(task, state, X[:10], Y[:10], values)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "model", [pytest.param(models.LeNet(classes=3), marks=pytest.mark.slow), Normalised()], ids=["lenet", "normalised"]
)
def test_a_loss_of_ones_own_needs_no_auxiliary_value(model):
    """Five arguments do: parameters, statistics and metrics are those of the same loss that carries them itself."""

    def toy(apply_fn, x, y, key, strength):
        noisy = x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
        return losses.cross_entropy(apply_fn, x, y) + strength * jnp.mean(
            jnp.sum((apply_fn(x) - apply_fn(noisy)) ** 2, axis=1)
        )

    with pytest.raises(TypeError, match="has_aux"):
        toy(None, None, None, None, None, has_aux=True)
    images = X if isinstance(model, Normalised) else np.tile(X, (1, 7, 7, 1))
    step = jax.jit(training.step, static_argnames="task")
    values, reached = hyper(strength=0.5), []
    for loss in (toy, losses.smoothness):
        task = training.Task(model, loss, batch_size=20)
        start = training.init(task, images, key=jax.random.key(0))
        reached.append(step(task, start, images[:20], Y[:20], values))
    (own, metrics), (same, expected) = reached
    for got, wanted in ((own.params, same.params), (own.statistics, same.statistics), (metrics, expected)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, wanted)
    assert not jax.tree.all(jax.tree.map(np.array_equal, own.params, start.params))


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_every_loss_learns_what_can_be_learnt():
    y = np.arange(50, dtype=np.int32) % 2
    x = np.tile(X // 2, (1, 2, 2, 1)) + (y[:, None, None, None] * 100).astype(np.uint8)
    for name, loss in losses.LOSSES.items():
        task = training.Task(models.LeNet(classes=2), loss, batch_size=50)
        state = training.init(task, x, key=jax.random.key(0))
        step = jax.jit(training.step, static_argnames="task")
        values = hyper(strength=0.01, learning_rate=0.05, milestones=jnp.array([99, 99]))
        history = []
        for _ in range(25):
            state, metrics = step(task, state, x, y, values)
            history.append(float(metrics.loss))
        assert history[-1] < 0.7 * history[0], (name, history)
        assert float(metrics.accuracy) > 0.9, name


def test_what_is_not_finite_is_named():
    good = training.Metrics(jnp.ones(3), jnp.ones(3), jnp.ones(3))
    training.check_finite(good, 5)
    bad = good._replace(grad_norm=jnp.array([1.0, jnp.inf, jnp.nan]))
    with pytest.raises(FloatingPointError, match="grad_norm is inf at step 6; use a smaller learning rate"):
        training.check_finite(bad, 5)
    with pytest.raises(FloatingPointError, match="loss is nan at step 2"):
        training.check_finite(training.Metrics(jnp.nan, jnp.ones(()), jnp.ones(())), 2)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0; no update was done yet, .* labels"):
        training.check_finite(training.Metrics(jnp.array([jnp.nan, 1.0]), jnp.ones(2), jnp.ones(2)), 0)


def test_milestones_are_the_references():
    assert training.milestones(200, 390).tolist() == [150 * 390, 175 * 390]
    assert training.milestones(5, 10).tolist() == [30, 40]


@pytest.mark.parametrize(
    ("labels", "batch_size", "said"),
    [
        (Y[:-1], 10, r"expected 50 labels, one for each image, got the shape \(49,\)"),
        (Y - 1, 10, "labels must be at least 0, got -1"),
        (Y + 1, 10, "labels must be below 3, the number of classes, got 3"),
        (Y, 0, "`batch_size` must be a whole number of at least 1, got 0"),
    ],
)
def test_examples_are_checked_before_an_epoch(labels, batch_size, said):
    """Where a label is missing JAX would gather the last one; one that is no class makes NaN at some later step."""
    task = training.Task(models.LeNet(classes=3), batch_size=batch_size)
    state = training.TrainState(jnp.zeros((), jnp.int32), {}, {}, (), jax.random.key(0))
    with pytest.raises(ValueError, match=said):
        next(inspect.unwrap(training.steps)(task, state, jnp.asarray(X), jnp.asarray(labels), hyper()))
