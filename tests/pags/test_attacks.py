"""Attacks against NumPy twins, closed forms on linear models, foolbox, and the ball that they may not leave."""

import inspect
import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pags_jax.apgd import apgd
from pags_jax.attacks import pgd
from tests.pags import oracles

PIXELS = 8


def mlp(params):
    w, b, v, c = (jnp.asarray(array) for array in params)
    return lambda x: jax.nn.softplus(x @ w + b[None]) @ v + c[None]


def losses(apply_fn, x, y):
    return np.asarray(-jax.nn.log_softmax(apply_fn(x))[jnp.arange(len(y)), y])


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    return oracles.draw_params(1, PIXELS), rng.uniform(size=(6, PIXELS)), np.arange(6) % 3


@pytest.fixture(scope="module")
def attack_of(problem):
    """The attack of seven steps in a scope, compiled once for all radii."""
    return cache(lambda scope: jax.jit(partial(pgd, mlp(problem[0]), key=None, steps=7, scope=scope)))


@pytest.fixture(scope="module")
def trained():
    """A network trained on three noisy clusters of 4 x 4 images, and images of it."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = np.clip(rng.uniform(size=(3, 16))[y] + 0.25 * rng.normal(size=(60, 16)), 0, 1)
    params = tuple(jnp.asarray(array) for array in oracles.draw_params(1, 16, hidden=12, scale=0.5))

    @jax.jit
    def descend(params):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(mlp(params)(x), y).mean()

        return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))

    for _ in range(150):
        params = descend(params)
    images, labels = jnp.asarray(x[:12].reshape(12, 4, 4, 1)), jnp.asarray(y[:12])
    apply_fn = jax.jit(lambda x: mlp(params)(x.reshape(x.shape[0], -1)))
    assert (apply_fn(images).argmax(axis=1) == labels).all()
    return apply_fn, images, labels


# ----------------------------------------------------------------------------------------------- twins
@pytest.mark.parametrize("eps", [0.05, 1.0, 8.0])
@pytest.mark.parametrize(("scope", "twin"), [("batch", oracles.batch_pgd), ("example", oracles.example_pgd)])
def test_both_scopes_reproduce_numpy_twins(scope, twin, eps, problem, attack_of):
    """P2: the reference has one ball for the batch; ours has one for each example."""
    params, x, y = problem
    start = eps / 4 * np.random.default_rng(3).uniform(size=x.shape)  # Outside of some balls: projected on the way.
    delta = attack_of(scope)(jnp.asarray(x), jnp.asarray(y), eps_l2=eps, start=jnp.asarray(start))
    np.testing.assert_allclose(delta, twin(params, x, y, start, eps, 7), rtol=1e-9, atol=1e-12)


def test_p2_what_a_batch_radius_means_depends_on_the_batch(problem):
    """P2: at one eps the reference grants an example of a larger batch less; a ball of its own grants the same."""
    params, x, y = problem
    mean_norms = {}
    for scope in ("batch", "example"):
        attack = jax.jit(partial(pgd, mlp(params), key=jax.random.key(0), eps_l2=0.5, steps=10, scope=scope))
        for n in (2, 6):
            mean_norms[scope, n] = np.linalg.norm(attack(x[:n], y[:n]), axis=1).mean()
    assert mean_norms["batch", 6] < 0.8 * mean_norms["batch", 2]
    np.testing.assert_allclose([mean_norms["example", 2], mean_norms["example", 6]], 0.5, rtol=1e-12)


# ----------------------------------------------------------------------------------- the exact worst case
def binary(w, bias):
    return lambda x: jnp.stack([jnp.zeros(x.shape[0], x.dtype), x @ w + bias], axis=1)


W = np.random.default_rng(4).normal(size=PIXELS)
ROWS = jnp.asarray(np.random.default_rng(5).uniform(size=(6, PIXELS)))
SIDES = jnp.array([0, 1, 0, 1, 1, 0])


def worst_loss(eps, dual_norm):
    """log(1 + exp(-margin)) with margin s (w.x + 0.3), s = +-1, less eps times the dual norm of w."""
    margin = (2 * np.asarray(SIDES) - 1) * (np.asarray(ROWS) @ W + 0.3) - eps * dual_norm
    return np.logaddexp(0, -margin)


LINEAR = binary(jnp.asarray(W), 0.3)


@cache
def on_linear(centred):
    options = {"steps": 10, "start": jnp.zeros_like(ROWS)} if centred else {"steps": 20, "step_size": 1e3}
    return jax.jit(partial(pgd, LINEAR, ROWS, SIDES, key=jax.random.key(1), **options))


@pytest.mark.parametrize("eps", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("ball", ["eps_l2", "eps_linf"])
@pytest.mark.parametrize("centred", [True, False])
def test_linear_models_meet_their_worst_case(centred, ball, eps):
    """The margin falls by eps |w|_2 along -s w / |w|, or by eps |w|_1 along -s sign(w): nothing in the ball does more.

    From the centre by default steps; from a random start by steps that dwarf the ball.
    """
    delta = on_linear(centred)(**{ball: eps})
    sides = (2 * np.asarray(SIDES) - 1)[:, None]
    direction = W / np.linalg.norm(W) if ball == "eps_l2" else np.sign(W)
    np.testing.assert_allclose(delta, -eps * sides * direction, rtol=1e-9, atol=1e-9 * eps)
    dual = np.linalg.norm(W) if ball == "eps_l2" else np.abs(W).sum()
    np.testing.assert_allclose(losses(LINEAR, ROWS + delta, SIDES), worst_loss(eps, dual), rtol=1e-9)


def test_a_box_and_linf_ball_meet_their_worst_corner():
    """Both constraints are separable: each pixel goes as far as either lets it."""
    delta = pgd(LINEAR, ROWS, SIDES, key=jax.random.key(0), eps_linf=0.4, steps=5, bounds=(0, 1))
    sides = (2 * np.asarray(SIDES) - 1)[:, None]
    corner = np.clip(np.asarray(ROWS) - 0.4 * sides * np.sign(W), 0, 1)
    np.testing.assert_allclose(ROWS + delta, corner, atol=1e-15)


# ----------------------------------------------------------------------------------------------- foolbox
@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy.ndimage.filters is on its way out
        import foolbox
    return foolbox


@cache
def from_start(apply_fn, ball, bounds):
    return jax.jit(
        lambda x, y, start, eps: pgd(apply_fn, x, y, key=None, **{ball: eps}, steps=10, start=start, bounds=bounds)
    )


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-50.0, 50.0)])
@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("ball", ["eps_l2", "eps_linf"])
def test_pgd_finds_what_foolbox_finds(ball, eps, bounds, foolbox, trained):
    apply_fn, x, y = trained
    family = foolbox.attacks.L2ProjectedGradientDescentAttack if ball == "eps_l2" else foolbox.attacks.LinfPGD
    start = np.random.default_rng(6).normal(size=x.shape)
    size = np.sqrt(np.sum(start**2, axis=(1, 2, 3), keepdims=True)) if ball == "eps_l2" else np.abs(start).max()
    start = jnp.asarray(np.clip(np.asarray(x) + eps / 2 * start / size, *bounds) - np.asarray(x))

    class FromStart(family):
        def get_random_start(self, x0, epsilon):
            return x0 + start

    attack = FromStart(abs_stepsize=eps / 5, steps=10, random_start=True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = attack.run(foolbox.JAXModel(apply_fn, bounds=bounds), x, y, epsilon=eps)
    delta = from_start(apply_fn, ball, bounds)(x, y, start, eps)
    assert (losses(apply_fn, x + delta, y) >= losses(apply_fn, theirs, y) - 1e-9).all()
    np.testing.assert_allclose(x + delta, theirs, atol=1e-9)
    assert losses(apply_fn, x + delta, y).mean() > losses(apply_fn, x, y).mean()


@pytest.mark.slow
def test_apgd_fools_what_foolbox_fools_at_equal_steps(foolbox, trained):
    """Foolbox's PGD by its own start; APGD from another, with as many gradients. Both in [0, 1]."""
    apply_fn, x, y = trained
    model = foolbox.JAXModel(apply_fn, bounds=(0, 1))
    for ball, family in (
        ("eps_l2", foolbox.attacks.L2ProjectedGradientDescentAttack), ("eps_linf", foolbox.attacks.LinfPGD),
    ):  # fmt: skip
        attack = jax.jit(
            partial(apgd, apply_fn, x, y, key=jax.random.key(3), steps=19, bounds=(0, 1), with_outcome=True)
        )
        for eps in (0.4, 0.8, 1.2) if ball == "eps_l2" else (0.1, 0.2, 0.3):
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                theirs = family(steps=20, random_start=False).run(model, x, y, epsilon=eps)
            fooled = np.asarray(apply_fn(theirs).argmax(1) != y)
            found = attack(**{ball: eps})
            assert not (fooled & ~np.asarray(found.fooled)).any()
            np.testing.assert_array_equal(apply_fn(x + found.delta).argmax(1) != y, found.fooled)


# --------------------------------------------------------------------- targets, restarts, and the best step
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_targets_are_reached_where_a_linear_model_allows(loss):
    """Rows of W span its classes evenly, so that every class can lead within a ball that is large enough."""
    rng = np.random.default_rng(8)
    w, x = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.uniform(size=(30, 6)))
    y = jnp.argmax(x @ w, axis=1)
    targets = (y + 1 + jnp.arange(30) % 3) % 4
    attack = jax.jit(partial(pgd, lambda x: x @ w, key=jax.random.key(0), steps=40, loss=loss, with_outcome=True))
    found = attack(x, y, targets=targets, eps_l2=4.0)
    assert (jnp.argmax((x + found.delta) @ w, axis=1) == targets).mean() > 0.95
    logits = np.asarray((x + found.delta) @ w)
    ahead, others = (
        logits[np.arange(30), targets],
        np.array([np.delete(f, t) for f, t in zip(logits, targets, strict=True)]),
    )
    rest = others.max(1) if loss == "margin" else np.log(np.exp(others).sum(1))
    np.testing.assert_allclose(found.loss, ahead - rest, rtol=1e-9)


def test_restarts_and_the_best_step_only_help(trained):
    apply_fn, x, y = trained
    key = jax.random.key(5)
    attack = jax.jit(
        partial(pgd, apply_fn, x, y, eps_l2=0.8, steps=4, with_outcome=True),
        static_argnames=("restarts", "best_step"),
    )
    last, best = attack(key=key), attack(key=key, best_step=True)
    rounding = 1e-12 * (1 + abs(last.loss))  # each is a program of its own
    assert (best.loss >= last.loss - rounding).all()
    np.testing.assert_allclose(losses(apply_fn, x + last.delta, y), np.logaddexp(0, last.loss), rtol=1e-9)
    many = attack(key=key, restarts=3)
    assert (many.loss >= best.loss - rounding).all()
    assert (many.fooled | ~best.fooled).all()
    assert (many.loss > best.loss).any()
    assert not last.no_gradient.any()


def test_steps_that_overshoot_keep_their_best():
    """Down a slope and into a wall: the last step is no worse than any, the best is the start."""

    def model(x):
        return jnp.stack([jnp.sum((x - 0.5) ** 2, axis=1), jnp.zeros(x.shape[0])], axis=1)

    x, y, start = jnp.full((1, 3), 0.5), jnp.zeros(1, int), jnp.full((1, 3), 1e-3)
    given = {"key": None, "start": start, "eps_l2": 1.0, "step_size": 0.5, "steps": 5}
    attack = jax.jit(partial(pgd, model, with_outcome=True, **given), static_argnames="best_step")
    assert float(jnp.abs(attack(x, y).delta).max()) > 0.05
    best = attack(x, y, best_step=True)
    np.testing.assert_allclose(best.delta, start, rtol=1e-12)  # Releases of XLA differ by the rounding of x + delta.
    assert best.loss[0] == pytest.approx(-3e-6)


# --------------------------------------------------------------------------------- balls, boxes and zeros
@partial(jax.jit, static_argnames=("ball", "scope", "bounds"))
def attack_in(ball, scope, bounds, x, y, eps, key, weights):
    return pgd(lambda x: jnp.tanh(x @ weights), x, y, key=key, **{ball: eps}, steps=4, scope=scope, bounds=bounds)


@given(
    exponent=st.floats(-8, 5),
    seed=st.integers(0, 2**31 - 1),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]),
    setting=st.sampled_from(
        [  # Each two of the three at all their values; each setting is a program.
            (("eps_l2", "example"), None, np.float32), (("eps_l2", "example"), (0.0, 1.0), np.float64),
            (("eps_l2", "batch"), (0.0, 1.0), np.float32), (("eps_l2", "batch"), None, np.float64),
            (("eps_linf", "example"), (0.0, 1.0), np.float32), (("eps_linf", "example"), None, np.float64),
        ]
    ),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_nothing_leaves_the_ball_or_the_box(exponent, seed, scale, setting):
    """In either precision, also where gradients underflow (a scale of 1e-30, or of 1e4, where tanh is flat)."""
    rng = np.random.default_rng(seed)
    (ball, scope), bounds, dtype = setting
    eps = dtype(10**exponent)
    x, weights = rng.uniform(size=(3, 5)).astype(dtype), (scale * rng.normal(size=(5, 4))).astype(dtype)
    delta = attack_in(ball, scope, bounds, x, rng.integers(0, 4, 3), eps, jax.random.key(seed), weights)
    assert delta.dtype == dtype
    delta = np.asarray(delta)
    assert np.isfinite(delta).all()
    wide = delta.astype(np.float64)
    size = np.abs(wide).max() if ball == "eps_linf" else np.linalg.norm(wide, axis=1 if scope == "example" else None)
    assert np.max(size) <= np.float64(eps) * (1 + 4 * np.finfo(dtype).eps)
    if bounds is not None:
        assert (x + delta).min() >= 0
        assert (x + delta).max() <= 1


@pytest.mark.parametrize(("ball", "scope"), [("eps_l2", "example"), ("eps_l2", "batch"), ("eps_linf", "example")])
def test_p4_a_zero_gradient_moves_nothing(ball, scope):
    """P4: the reference divides by its norm."""
    x, y, start = jnp.ones((2, 3)), jnp.array([0, 1]), jnp.full((2, 3), 0.1)
    delta = pgd(lambda x: 0.0 * x, x, y, key=None, **{ball: 1.0}, steps=3, scope=scope, start=start)
    np.testing.assert_array_equal(delta, start)


def test_an_example_without_gradient_stays_while_others_move():
    weights = jnp.asarray(np.random.default_rng(7).normal(size=(3, 3)))
    x, y = jnp.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), jnp.array([0, 1])

    def model(x):
        return jnp.where(x[:, :1] > 0.5, x @ weights, 0.0)

    delta = pgd(model, x, y, key=None, eps_l2=0.25, steps=3, start=jnp.zeros_like(x))
    np.testing.assert_array_equal(delta[0], 0)
    assert np.linalg.norm(delta[1]) == pytest.approx(0.25)


@pytest.mark.parametrize("ball", ["eps_l2", "eps_linf"])
def test_a_radius_of_zero_gives_zero(ball):
    delta = pgd(binary(jnp.asarray(W), 0.0), ROWS, SIDES, key=jax.random.key(0), **{ball: 0.0}, steps=3)
    np.testing.assert_array_equal(delta, jnp.zeros_like(ROWS))


def test_tiny_float32_gradients_still_point_uphill():
    """A label that leads by 60: gradients of 1e-26, whose squares are zero in float32."""
    w = W.astype(np.float32)
    x, y = jnp.zeros((1, PIXELS), jnp.float32), jnp.array([1])
    delta = pgd(binary(jnp.asarray(w), 60.0), x, y, key=None, eps_l2=0.5, steps=4, start=jnp.zeros_like(x))
    np.testing.assert_allclose(delta[0], -0.5 * w / np.linalg.norm(w), rtol=1e-5)


# ------------------------------------------------------------------------------------------ random starts
def starts(n, d, seed, **options):
    """Where attacks start: constant logits have no gradient, so that they end there too."""
    x, y = jnp.full((n, d), 0.5), jnp.zeros(n, int)
    attack = jax.jit(partial(pgd, lambda x: jnp.zeros((x.shape[0], 2)), steps=1, **options))
    return np.asarray(attack(x, y, key=jax.random.key(seed)))


@pytest.mark.parametrize("d", [2, 16])
def test_l2_starts_are_uniform_in_the_ball(d):
    """(|delta| / eps)^d is uniform; a coordinate's square is Beta(1/2, (d + 1)/2), its sign a fair coin."""
    delta = starts(4000, d, 0, eps_l2=3.0) / 3
    assert stats.kstest(np.linalg.norm(delta, axis=1) ** d, "uniform").pvalue > 1e-3
    for column in (delta[:, 0], delta[:, -1]):
        assert stats.kstest(column**2, stats.beta(0.5, (d + 1) / 2).cdf).pvalue > 1e-3
        assert stats.binomtest(int((column > 0).sum()), 4000).pvalue > 1e-3


def test_linf_starts_are_uniform_in_the_cube():
    delta = starts(500, 8, 1, eps_linf=0.2)
    assert stats.kstest(delta.ravel(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3


def test_p3_batch_starts_have_half_the_radius_and_no_bias():
    """P3: the reference draws them from [0, 1), so that their mean is sqrt(3)/2 of the root mean square."""
    delta = starts(500, 8, 2, eps_l2=7.0, scope="batch")
    assert np.linalg.norm(delta) == pytest.approx(3.5, rel=1e-12)
    z = delta / np.sqrt(np.mean(delta**2))
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3


def test_keys_decide_starts_alone():
    np.testing.assert_array_equal(starts(5, 3, 0, eps_l2=1.0), starts(5, 3, 0, eps_l2=1.0))
    assert (starts(5, 3, 0, eps_l2=1.0) != starts(5, 3, 1, eps_l2=1.0)).all()


# --------------------------------------------------------------------------------------- what it runs on
@pytest.mark.parametrize(
    "options",
    [{"eps_l2": 0.5}, {"eps_linf": 0.1, "bounds": (0.0, 1.0)}, {"eps_l2": 2.0, "scope": "batch", "step_size": 0.3}],
)
def test_unrolled_and_jitted_attacks_are_the_looped_one(options, trained):
    apply_fn, x, y = trained
    attack = partial(pgd, apply_fn, key=jax.random.key(0), steps=5, **options)
    looped = attack(x, y)
    np.testing.assert_allclose(attack(x, y, unroll=True), looped, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(jax.jit(attack)(x, y), looped, rtol=1e-10, atol=1e-13)


def test_a_sharded_batch_is_attacked_alike(trained):
    apply_fn, x, y = trained
    x, y = x[:8], y[:8]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    attack = jax.jit(partial(pgd, apply_fn, key=jax.random.key(0), eps_l2=1.0, steps=3, scope="batch"))
    spread = attack(jax.device_put(x, rows), jax.device_put(y, rows))
    np.testing.assert_allclose(spread, attack(x, y), rtol=1e-10, atol=1e-13)


def test_nothing_flows_back_through_an_attack():
    """As a constant of training: no derivative by the model's parameters, nor by the radius."""

    def total(w, eps):
        return jnp.sum(pgd(binary(w, 0.0), ROWS, SIDES, key=jax.random.key(0), eps_l2=eps, steps=2))

    by_model, by_radius = jax.grad(total, (0, 1))(jnp.asarray(W), 0.5)
    np.testing.assert_array_equal(by_model, jnp.zeros_like(W))
    assert by_radius == 0


def test_radii_and_step_sizes_share_what_is_compiled():
    traces = []

    def model(x):
        traces.append(1)
        return x

    @jax.jit
    def attack(eps, size):
        return pgd(model, ROWS, SIDES, key=jax.random.key(0), eps_l2=eps, step_size=size, steps=2)

    attack(0.1, 0.1)
    once = len(traces)
    for eps in (0.2, 0.3, 4.0):
        attack(eps, eps / 2)
    assert len(traces) == once > 0


# ----------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eps_l2": None}, "exactly one radius"),
        ({"eps_linf": 1.0}, "exactly one radius"),
        ({"eps_l2": -1.0}, "`eps_l2` must be finite and at least 0, got -1.0"),
        ({"eps_l2": np.nan}, "must be finite and at least 0, got nan"),
        ({"eps_l2": np.inf}, "must be finite and at least 0, got inf"),
        ({"eps_l2": np.ones(3)}, r"`eps_l2` must be one number or 2, one for each image, got the shape \(3,\)"),
        ({"steps": 0}, "`steps` .* at least 1, got 0"),
        ({"steps": 2.0}, "`steps` .* whole number .* got 2.0"),
        ({"steps": True}, "`steps` .* whole number .* got True"),
        ({"scope": "image"}, "unknown scope 'image'; known: example, batch"),
        ({"scope": "batch", "eps_l2": None, "eps_linf": 1.0}, "defined for one `eps_l2`"),
        ({"key": None}, "give a `key` for the random start"),
        ({"key": 0}, r"`key` must be a key such as `jax.random.key\(0\)`, got 0"),
        ({"start": jnp.zeros((2, 4))}, r"`start` must have the shape \(2, 3\) of `x`, got \(2, 4\)"),
        ({"start": jnp.full((2, 3), jnp.nan)}, "`start` holds NaN"),
        ({"targets": jnp.array([1, 1])}, "`targets` must be other classes than the labels, row 1 has 1 for both"),
        ({"step_size": 0.0}, "`step_size` must be finite and above 0, got 0.0"),
        ({"step_size": np.inf}, "`step_size` must be finite and above 0, got inf"),
        ({"step_size": True}, "`step_size` must be numbers, got bool"),
        ({"step_size": "1"}, "`step_size` must be numbers, got <U1"),
        ({"bounds": ("0", "1")}, "`bounds` must be numbers, got <U1"),
        ({"bounds": (0.0, None)}, "`bounds` must be numbers, got object"),
        ({"x": np.array([[None] * 3] * 2)}, "images must be floats .* got object"),
        ({"bounds": (1.0, 0.0)}, r"\(lowest, highest\), got \(1.0, 0.0\)"),
        ({"bounds": (0.0, 0.25)}, r"images must lie inside `bounds` = \(0.0, 0.25\)"),
        ({"x": jnp.full((2, 3), jnp.nan)}, "NaN or infinite"),
        ({"x": jnp.ones((2, 3), int)}, "must be floats"),
        ({"y": jnp.array([0, 3])}, "below 3, the number of classes, got 3"),
        ({"y": jnp.array([0, -1])}, "at least 0, got -1"),
        ({"y": jnp.array([0])}, "expected 2 labels"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, said):
    arguments = {
        "x": jnp.full((2, 3), 0.5), "y": jnp.array([0, 1]), "key": jax.random.key(0), "eps_l2": 1.0, "steps": 2,
    }  # fmt: skip
    unchecked = inspect.unwrap(pgd)  # annotations are checked in tests only
    with pytest.raises(ValueError, match=said):
        unchecked(lambda x: x, **(arguments | changes))


def test_traced_radii_and_targets_that_cannot_be_used_prove_nothing():
    given = {"key": jax.random.key(0), "steps": 2, "with_outcome": True}
    attack = jax.jit(lambda **options: pgd(lambda x: x[:, :2], ROWS, SIDES, **given, **options))
    assert attack(eps_l2=jnp.full(6, -1.0)).fooled.all()
    assert attack(eps_l2=0.01, targets=SIDES).no_gradient.all()
