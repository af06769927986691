"""Checkpoints: everything comes back bit for bit, whatever is not the same run's is refused, a kill loses nothing."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import checkpoints
from tests import strict

ROOT = Path(__file__).resolve().parents[2]
FINGERPRINT = {"model": "lenet", "learning_rate": 0.1, "radii": (0.5, 1.0)}


class State(NamedTuple):
    step: jax.Array
    params: dict
    key: jax.Array
    table: np.ndarray


def state(seed=0, width=5):
    keys, draws = jax.random.split(jax.random.key(seed), 3), np.random.default_rng(seed)
    params = {
        "dense": {"kernel": jnp.asarray(draws.normal(size=(4, width)), jnp.float32)},
        "half": jnp.asarray(draws.normal(size=3), jnp.bfloat16),
        "nothing": {},
    }
    return State(jnp.int32(seed), params, keys, np.arange(6.0).reshape(2, 3) + seed)


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_everything_comes_back_and_the_newest_two_stay(tmp_path):
    assert checkpoints.latest(tmp_path / "none") is None
    threads = threading.active_count()
    for step in (1, 9, 10):
        checkpoints.save(tmp_path, state(step), step=step, fingerprint=FINGERPRINT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9"]
    assert checkpoints.latest(tmp_path) == 10
    for step, given in ((10, None), (9, 9)):
        restored = checkpoints.restore(tmp_path, state(0), fingerprint=FINGERPRINT, step=given)
        assert_same_bits(restored, state(step))
        assert type(restored.table) is np.ndarray
    until = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_special_values_and_key_types_come_back(tmp_path):
    tree = {
        "floats": jnp.array([jnp.nan, -jnp.nan, jnp.inf, -0.0, 1e-42], jnp.float32),
        "rbg": jax.random.key(1, impl="rbg"),
        "scalar": np.zeros(()),
        "bits": np.array([True, False]),
    }
    checkpoints.save(tmp_path, tree, step=0, fingerprint={})
    restored = checkpoints.restore(tmp_path, tree, fingerprint={})
    assert_same_bits(restored, tree)
    assert jax.random.key_impl(restored["rbg"]) == "rbg"
    with pytest.raises(checkpoints.CheckpointError, match="rbg"):
        checkpoints.restore(tmp_path, tree | {"rbg": jax.random.key(1)}, fingerprint={})


def test_arrays_go_back_to_their_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    tree = {"x": jax.device_put(jnp.arange(16.0), sharding), "y": jax.device_put(jnp.ones(3), jax.devices()[5])}
    checkpoints.save(tmp_path, tree, step=0, fingerprint={})
    restored = checkpoints.restore(tmp_path, tree, fingerprint={})
    assert_same_bits(restored, tree)
    assert {name: leaf.sharding for name, leaf in restored.items()} == {n: leaf.sharding for n, leaf in tree.items()}


def test_the_same_step_is_replaced_and_later_ones_go(tmp_path):
    for seed, step in ((1, 4), (2, 8), (3, 4)):
        checkpoints.save(tmp_path, state(seed), step=step, fingerprint=FINGERPRINT)
    assert [path.name for path in tmp_path.iterdir()] == ["4"]
    assert_same_bits(checkpoints.restore(tmp_path, state(), fingerprint=FINGERPRINT), state(3))


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, state(), step=step, fingerprint=FINGERPRINT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "notes.txt"]


@pytest.mark.parametrize(
    ("like", "fingerprint", "said"),
    [
        (state(), FINGERPRINT | {"model": "resnet18"}, r'model: "lenet" there, "resnet18" here'),
        (state(), FINGERPRINT | {"radii": (0.5,)}, r"radii: \[0.5, 1.0\] there, \[0.5\] here"),
        (state(), {"model": "lenet", "radii": (0.5, 1.0)}, r"learning_rate: 0.1 there, absent here"),
        (state(width=6), FINGERPRINT, r'params/dense/kernel: "float32\[4, 5\]" there, "float32\[4, 6\]" here'),
        (state()._replace(params={}), FINGERPRINT, r"params/dense/kernel: .* there, absent here; params/half"),
        (state()._replace(step=jnp.float32(0)), FINGERPRINT, r'step: "int32\[\]" there, "float32\[\]" here'),
    ],
)
def test_another_configuration_or_architecture_is_refused(tmp_path, like, fingerprint, said):
    path = checkpoints.save(tmp_path, state(), step=3, fingerprint=FINGERPRINT)
    with pytest.raises(checkpoints.CheckpointError, match=said) as refused:
        checkpoints.restore(tmp_path, like, fingerprint=fingerprint)
    assert str(path) in str(refused.value)


def test_nothing_to_restore_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoints.restore(tmp_path, state(), fingerprint=FINGERPRINT)
    checkpoints.save(tmp_path, state(), step=3, fingerprint=FINGERPRINT)
    with pytest.raises(FileNotFoundError, match="no checkpoint 4 in"):
        checkpoints.restore(tmp_path, state(), fingerprint=FINGERPRINT, step=4)


def test_every_damage_to_the_arrays_is_named(tmp_path):
    checkpoints.save(tmp_path / "good", state(1), step=1, fingerprint=FINGERPRINT)
    path = checkpoints.save(tmp_path / "good", state(2), step=2, fingerprint=FINGERPRINT)
    inside = [file.relative_to(path) for file in path.rglob("*") if file.is_file() and file.stat().st_size]
    assert len(inside) > 5
    for name in inside:
        for damage in ("flip", "truncate", "delete"):
            shutil.rmtree(tmp_path / "bad", ignore_errors=True)
            file = Path(shutil.copytree(tmp_path / "good", tmp_path / "bad")) / "2" / name
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0x40
            if damage == "delete":
                file.unlink()
            else:
                file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
            with pytest.raises(checkpoints.CheckpointError, match=f"{tmp_path / 'bad' / '2'} is damaged"):
                checkpoints.restore(tmp_path / "bad", state(), fingerprint=FINGERPRINT)
    shutil.rmtree(tmp_path / "bad" / "2")
    assert_same_bits(checkpoints.restore(tmp_path / "bad", state(), fingerprint=FINGERPRINT), state(1))


def test_every_damage_to_the_description_is_named(tmp_path):
    file = checkpoints.save(tmp_path, state(), step=1, fingerprint=FINGERPRINT) / "about.json"
    content = file.read_bytes()
    for place in range(len(content.rstrip())):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(checkpoints.CheckpointError, match="is damaged"):
            checkpoints.restore(tmp_path, state(), fingerprint=FINGERPRINT)


@pytest.fixture
def server(tmp_path_factory):
    """Runs one life of a training, see ``training_to_kill``."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.training_to_kill"],
        cwd=ROOT,
        env=strict.one_device() | cache,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(folder, **order):
        print(json.dumps({"folder": str(folder), **order}), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    with process:
        yield ask
        process.stdin.close()


@pytest.fixture
def uninterrupted(server, tmp_path_factory):
    answer = server(tmp_path_factory.mktemp("uninterrupted"))
    assert answer["signal"] == 0
    return answer


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits(server, uninterrupted, tmp_path):
    draw = np.random.default_rng(0)
    random = [
        {"saves": int(draw.integers(1, 3)), "delay": draw.uniform(0, 2) * uninterrupted["each"]} for _ in range(10)
    ]
    inside = [["write_text", False], ["rename", False], ["rename", True], ["rmtree", False], ["rmtree", True]]
    for order in random + [{"point": point} for point in inside]:
        assert server(tmp_path, **order)["signal"] == 9
    folder = tmp_path / "checkpoints" / "model=tiny"
    assert 10 < checkpoints.latest(folder) < uninterrupted["saves"]
    end = server(tmp_path)
    assert end["digest"] == uninterrupted["digest"]
    assert 0 < end["saves"] < uninterrupted["saves"]
    assert len(list(folder.iterdir())) == 2
