"""Canaries in one network: scores by hand; what must be caught is caught, what is certified is not."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, audit, make_data, noisy_finetuning, privacy

DRAWS = np.random.default_rng(0)


def random_rows(count):
    return make_data(DRAWS.normal(size=(count, 200)), np.arange(count) % 2, np.arange(count) // 2 % 2)


def predict(params, x):
    return x @ params


def train(rows, key):
    """Ridge regression on the labels, of more features than rows: whatever it sees it learns by heart."""
    del key
    seen = rows.x * rows.weight[:, None]
    gram = seen @ seen.T + 1e-3 * jnp.eye(len(rows.y))
    return seen.T @ jnp.linalg.solve(gram, rows.weight * (2.0 * rows.y.astype(float) - 1))


ROWS, HELD = random_rows(30), random_rows(40)
OBJECTIVE = Objective(l2=1e-4, predict=predict)
MU = 0.5


@cache
def canaries():
    return audit.mislabelled(HELD, 40, key=jax.random.key(1))


def noisy(params, rows, forget, key, *, share=1.0):
    """Certified at mu = 0.5; with a small share of the noise it is not, whatever it says."""
    plan = noisy_finetuning.Schedule(start_clip=0.5 if share == 1 else 50.0, noise=2.0 * share)
    return noisy_finetuning.finetune(OBJECTIVE, params, rows, forget, schedule=plan, key=key).params


METHODS = {"noisy": noisy, "fake": partial(noisy, share=1e-3), "scrub": {"method": "scrub", "steps": 1}}


@pytest.fixture(scope="module")
def scored():
    return audit.score_canaries(OBJECTIVE, ROWS, canaries(), train=train, methods=METHODS, key=jax.random.key(2))


def test_canaries_are_held_out_rows_with_the_other_label():
    label = {tuple(x): int(y) for x, y in zip(np.asarray(HELD.x).tolist(), HELD.y.tolist(), strict=True)}
    assert len(canaries().y) == 40
    for x, y in zip(np.asarray(canaries().x).tolist(), canaries().y.tolist(), strict=True):
        assert y == 1 - label[tuple(x)]
    with pytest.raises(ValueError, match="`count` must be between 2 and the number of rows 40, got 41"):
        audit.mislabelled(HELD, 41, key=jax.random.key(0))


def test_scores_are_shifts_of_margins_from_the_network_without_canaries(scored):
    for_train, for_coins, _ = jax.random.split(jax.random.key(2), 3)
    np.testing.assert_array_equal(scored.inside, jax.random.bernoulli(for_coins, 0.5, (40,)))
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), ROWS, canaries())

    def trained(weight):
        return train(rows._replace(weight=jnp.concatenate([jnp.ones(30), weight])), for_train)

    with_them, without = (
        np.asarray(predict(trained(weight), canaries().x)) for weight in (scored.inside.astype(float), jnp.zeros(40))
    )
    shift = (2.0 * np.asarray(canaries().y) - 1) * (with_them - without)
    np.testing.assert_allclose(scored.scores["no_removal"], shift, atol=1e-9)


def test_one_run_catches_no_removal_and_a_fake_and_not_the_certified_network(scored):
    found = {name: audit.one_run(scores, scored.inside, delta=1e-5) for name, scores in scored.scores.items()}
    assert found["noisy"].mu <= MU
    assert found["noisy"].epsilon <= float(privacy.gaussian_epsilon(2 * MU, 1.0, 1e-5))
    assert min(found["no_removal"].mu, found["fake"].mu) > MU
