"""Two real processes on this machine, joined over loopback: the answers of one, and what happens when one dies."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from fmu_jax import Objective, datasets, fit
from pags_jax import checkpoints, models
from scripts.harness import store
from tests import strict
from tests.parts import read_together

ROOT = Path(__file__).resolve().parents[2]
PAGS = [
    *("-m", "scripts.pags.train", "--train-rows", "96", "--batch-size", "32", "--width", "0.25", "--steps", "2"),
    *("--attack-rows", "20", "--attack-steps", "2", "--attack-eps", "0.5", "--validation", "0.01"),
]
SWEEP = [*PAGS, "--loss", "cross_entropy", "gradient_norm", "--strengths", "0.5", "--epochs", "1"]
TRAINING = [*PAGS, "--loss", "gradient_norm", "--strengths", "0.5", "--epochs", "12", "--save-minutes", "0"]

# Each process makes only its own part of the rows.
UNLEARNING = """
import json, sys
import jax
jax.config.update("jax_enable_x64", True)
from fmu_jax import sharding
process, processes, port = map(int, sys.argv[1:4])
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, process)
import jax.numpy as jnp, numpy as np, fmu_jax
draw = np.random.default_rng(0)
x = draw.normal(size=(1001, 5)); x[:, -1] = 1
group = (draw.random(1001) < 0.4).astype(np.int32)
data = fmu_jax.Data(x, (x[:, 0] + 0.3 * group > 0).astype(np.int32), group, np.ones(1001))
if processes > 1:
    data = jax.tree.map(lambda leaf: leaf[:600] if process == 0 else leaf[600:], data)
mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
over_all = jax.sharding.NamedSharding(mesh, jax.P("rows"))
with jax.set_mesh(mesh):
    data = sharding.place_process_rows(jax.tree.map(np.asarray, data), over_all)
    noise = jnp.linspace(-1.0, 1.0, 5)
    objective = fmu_jax.Objective(l2=1e-3, fairness=1.0)
    fit = fmu_jax.fit(objective, data, noise=noise)
    removal = fmu_jax.remove(objective, fit.params, data, np.arange(20), noise=noise)
    certificate = fmu_jax.certify(objective, fit.params, removal, sigma=1.0, delta=1e-5, noise=noise)
    people = fmu_jax.datasets.from_csv(
        f"{sys.argv[4]}/{process}.csv", label="paid", group="sex", seed=0, gather=sharding.gather
    )
    of_people = fmu_jax.fit(objective, sharding.place_process_rows(people.train, over_all)).params
    own = sharding.first_row(data)
    forget = sum(sharding.gather([own, own + 1]), []) if processes > 1 else [0, 1, 600, 601]
    some = fmu_jax.remove(objective, fit.params, data, np.array(forget), noise=noise)
    from fmu_jax import stream
    state = stream.start(objective, fit, data, noise=noise, sigma=1.0, delta=1e-5, budget=1.0)
    served = stream.serve(state, data, jnp.array(forget))[0].params
    rows, left = stream.take(data, np.array(forget))
    state = stream.refresh(stream.delete(state, rows), left)
    found = fmu_jax.metrics.group_metrics(fmu_jax.predict_labels(objective, fit.params, data.x), data)
    interval = fmu_jax.fairness_interval(objective, removal, data, noise=noise)
    here = [len(part.data) for part in getattr(data.x, "addressable_shards", [])]
    print(json.dumps({
        "fit": fit.params.tolist(), "removed": removal.params.tolist(), "epsilon": float(certificate.epsilon),
        "bound": float(certificate.row_bound), "rows": data.x.shape[0], "here": here,
        "people": of_people.tolist(), "own": own, "some": some.params.tolist(), "streamed": state.params.tolist(),
        "served": served.tolist(),
        "gap": float(found.equalized_odds_mean), "interval": interval.equalized_odds_mean.tolist(),
    }), flush=True)
assert np.array_equal(sharding.on_host(data.weight)[forget], np.ones(4))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(*words):
    environment = strict.one_device() | {"JAX_PLATFORMS": "cpu", "CI": "true"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def together(*words):
    """Two processes of a script."""
    join = ["--coordinator", f"localhost:{free_port()}", "--processes", "2"]
    return [start(*words, *join, "--process", str(process)) for process in (0, 1)]


def ended(*processes):
    """What each of them wrote; all must have ended well."""
    texts = []
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        texts.append(out)
    return texts


@pytest.mark.slow
def test_each_process_holds_its_rows_and_all_agree_with_one(tmp_path):
    write_people(tmp_path)
    port = free_port()
    (alone,) = ended(start("-c", UNLEARNING, "0", "1", "0", str(tmp_path)))
    parts = ended(*(start("-c", UNLEARNING, str(process), "2", str(port), str(tmp_path)) for process in (0, 1)))
    alone, *parts = (json.loads(text.splitlines()[-1]) for text in (alone, *parts))
    assert [part.pop("own") for part in parts] == [0, 600]
    assert parts[0] == parts[1]
    assert (parts[0]["rows"], parts[0]["here"]) == (1200, [600])
    for name in ("fit", "removed", "bound", "some", "streamed", "served", "gap", "interval"):
        np.testing.assert_allclose(parts[0][name], alone[name], rtol=1e-9)
    np.testing.assert_allclose(parts[0]["epsilon"], alone["epsilon"], rtol=1e-6)
    np.testing.assert_allclose(parts[0]["people"], of_people(tmp_path), rtol=1e-9)


def write_people(folder):
    """A table in two files, neither of which has all jobs."""
    draw = np.random.default_rng(1)
    job = np.sort(draw.choice(["clerk", "cook", "smith"], 700))
    table = pd.DataFrame({"age": draw.normal(40, 9, 700), "job": job})
    table = table.assign(sex=draw.choice(["man", "woman"], 700), paid=draw.choice(["no", "yes"], 700))
    table[:300].to_csv(folder / "0.csv", index=False)
    table[300:].to_csv(folder / "1.csv", index=False)


def of_people(folder):
    """The model of both files' rows, put together here."""

    def read(path, gather):
        return datasets.from_csv(path, label="paid", group="sex", seed=0, gather=gather).train

    parts = read_together(read, [folder / "0.csv", folder / "1.csv"])
    return fit(Objective(l2=1e-3, fairness=1.0), jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)).params


def weights(folder):
    rows = store.read_rows(folder)
    return rows, [models.load(folder / row["weights"]).variables for row in rows]


def assert_same_models(there, here, tolerance):
    (rows, trained), (wanted, expected) = weights(there), weights(here)
    assert [row["unit"] for row in rows] == [row["unit"] for row in wanted]
    for model, other in zip(trained, expected, strict=True):
        assert jax.tree.structure(model) == jax.tree.structure(other)
        for one, two in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, atol=tolerance)


@pytest.mark.weekly
def test_a_sweep_dealt_to_two_processes(tmp_path):
    """Every run deals units to slices of one process (`test_mesh`), and has two processes of a script (below)."""
    ended(start(*SWEEP, "--out", str(tmp_path / "one")))
    ended(*together(*SWEEP, "--mesh", "sweep=2", "--out", str(tmp_path / "two")))
    assert_same_models(tmp_path / "two", tmp_path / "one", 0)


@pytest.mark.slow
def test_one_dies_the_other_stops_and_says_so_and_the_run_resumes(tmp_path):
    ended(start(*TRAINING, "--out", str(tmp_path / "one")))
    words = [*TRAINING, "--mesh", "data=2", "--out", str(tmp_path / "two")]
    first, second = together(*words)
    until = time.monotonic() + 240
    while not saved(tmp_path / "two") and time.monotonic() < until and first.poll() is None:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    error = first.communicate(timeout=120)[1]
    second.communicate()
    assert first.returncode not in (0, None)
    assert "another process of this run has stopped" in error, error
    step = saved(tmp_path / "two")
    assert 0 < step < 36
    ended(*together(*words))
    assert_same_models(tmp_path / "two", tmp_path / "one", 1e-4)


def saved(folder):
    """The step of the newest checkpoint, 0 without any."""
    folders = list((folder / "checkpoints").glob("*"))
    return (checkpoints.latest(folders[0]) or 0) if folders else 0


@pytest.mark.parametrize("words", [["--coordinator", "auto"]])
def test_no_cluster_is_one_line(tmp_path, words):
    process = start(*SWEEP, *words, "--out", str(tmp_path / "run"))
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "no cluster was found here" in error
    assert "Traceback" not in error
