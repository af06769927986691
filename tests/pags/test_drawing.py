"""Tasks of drawing: what they begin with, and that results are measured against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import drawing

NOISE = 0.25


@pytest.fixture(scope="module")
def tasks():
    x = jax.random.uniform(jax.random.key(0), (6, 8, 8, 1), jnp.float32)
    y = jnp.arange(6) % 3
    options = {"classes": 3, "key": jax.random.key(1), "noise": NOISE, "square": 3, "shrink": 4}
    return drawing.tasks_of(x, y, x, y, **options)


def test_tasks_begin_as_they_say(tasks):
    assert tuple(tasks.starts) == drawing.TASKS
    assert [tasks.starts[task][1].tolist() for task in ("synthesis", "counterfactual")] == [
        [0, 1, 2, 0, 1, 2],
        [1, 2, 0, 1, 2, 0],
    ]
    start, _ = tasks.starts["in-painting"]
    known = np.broadcast_to(tasks.known, start.shape)
    assert (~known).sum() == 6 * 9
    np.testing.assert_array_equal(start[known], tasks.truth[known])
    blocks = np.asarray(tasks.truth, np.float64).reshape(6, 2, 4, 2, 4, 1).mean((2, 4))
    sketches, y = tasks.starts["image-to-image"]
    np.testing.assert_allclose(sketches, np.kron(np.round(4 * blocks) / 4, np.ones((1, 4, 4, 1))), atol=1e-6)
    np.testing.assert_array_equal(y, np.arange(6) % 3)
    mean = np.broadcast_to(np.asarray(tasks.truth).mean(0), start.shape)
    np.testing.assert_allclose(start[~known], mean[~known], rtol=1e-6)
    noise = np.asarray(tasks.starts["denoising"][0] - tasks.truth)
    assert noise.std() == pytest.approx(NOISE, rel=0.15)


def test_quality_is_that_of_numpy_inside_the_square_and_of_pairs_of_a_class(tasks):
    """With the mean absolute difference in place of LPIPS, for images in [-1, 1]."""

    def apart(a, b):
        return abs(a - b).mean((1, 2, 3))

    drawn = drawing.Drawn(jnp.clip(tasks.truth + 0.1, 0, 1), tasks.starts["in-painting"][0])
    truth, images = np.asarray(tasks.truth, float), np.asarray(drawn.images, float)
    found = drawing.quality(tasks, "in-painting", drawn, lpips=apart)
    hole = ~np.broadcast_to(tasks.known, truth.shape)
    error = [np.mean((images[k] - truth[k])[hole[k]] ** 2) for k in range(6)]
    np.testing.assert_allclose(found["psnr_result"], -10 * np.log10(error), rtol=1e-4)
    np.testing.assert_allclose(found["lpips_result"], 2 * abs(images - truth).mean((1, 2, 3)), rtol=1e-4)
    assert set(found) == {f"{measure}_{end}" for measure in ("psnr", "lpips") for end in ("start", "result")}
    pairs = drawing.quality(tasks, "synthesis", drawn, lpips=apart)["diversity"]
    np.testing.assert_allclose(pairs[3], 2 * abs(images[3] - images[0]).mean(), rtol=1e-4)
    assert drawing.quality(tasks, "counterfactual", drawn, lpips=apart) == {}


def test_a_denoiser_that_knows_the_image_draws_it(tasks):
    made = drawing.by_denoiser(
        lambda labels=None: lambda x, sigma: 2 * tasks.truth - 1, tasks, key=jax.random.key(2), steps=3
    )
    for task in drawing.TASKS:
        np.testing.assert_allclose(made[task].images, tasks.truth, atol=1e-6)
    assert made["synthesis"].start is None


def test_each_task_ascends_within_its_own_radius(tasks):
    weights = jax.random.normal(jax.random.key(3), (64, 3), jnp.float32)
    radii = {task: 0.1 * (1 + k) for k, task in enumerate(drawing.TASKS)}
    made = drawing.by_classifier(lambda x: x.reshape(-1, 64) @ weights, tasks, radii, key=jax.random.key(4), steps=2)
    for task in drawing.TASKS[1:]:
        moved = np.linalg.norm(np.asarray(made[task].images - made[task].start).reshape(6, -1), axis=1)
        assert 0 < moved.max() <= radii[task] + 1e-5
        assert made[task].reached.shape == (6,)


def test_measures_are_shares_of_the_judge_and_means_of_quality(tasks):
    """The judge sees class 1 in bright images; results of in-painting are bright for half of the images."""
    bright = jnp.arange(6) % 2 == 0
    images = jnp.where(bright[:, None, None, None], 0.9, 0.1).astype(jnp.float32) * jnp.ones((6, 8, 8, 1), jnp.float32)
    drawn = drawing.Drawn(images, tasks.truth, bright)

    def judge(x):
        bright = x.mean((1, 2, 3))
        return jnp.stack([jnp.full_like(bright, 0.5), bright, -jnp.ones_like(bright)], 1)

    def apart(a, b):
        return jnp.abs(a - b).mean((1, 2, 3))

    found = drawing.measures(tasks, "in-painting", drawn, judge=judge, lpips=apart)
    to = np.asarray(tasks.starts["in-painting"][1])
    assert found["reached"] == 0.5
    assert found["judged"] == pytest.approx(np.mean(np.where(bright, 1, 0) == to))
    assert found["judged_start"] == pytest.approx(np.mean(np.asarray(judge(tasks.truth)).argmax(1) == to))
    values = drawing.quality(tasks, "in-painting", drawn, lpips=apart)
    assert found["lpips_result"] == pytest.approx(float(values["lpips_result"].mean()), rel=1e-6)
    assert found["psnr_result_error"] == pytest.approx(float(values["psnr_result"].std()) / np.sqrt(6), rel=1e-5)
    alone = drawing.measures(tasks, "counterfactual", drawing.Drawn(images))
    assert alone == {"reached": None, "judged": None, "judged_start": None}


def test_sketches_need_blocks_that_fit():
    with pytest.raises(ValueError, match=r"`block` must divide height and width .*, got 4 for"):
        drawing.sketch(jnp.ones((1, 9, 7, 3), jnp.float32), 4)
    with pytest.raises(ValueError, match="block"):
        drawing.sketch(jnp.ones((1, 8, 8, 1), jnp.float32), 0)
