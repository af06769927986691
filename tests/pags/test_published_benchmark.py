"""The benchmark of networks of published sizes has networks of those sizes, and its sides run, on small ones here."""

import json

import jax
import numpy as np
import pytest

from benchmarks import pags_cases, pags_published
from pags_jax import models
from pags_jax.models import architectures
from scripts.harness import cli

SMALL = {
    "engstrom": models.Normalised(models.ResNet(classes=10, blocks=(1,), width=0.125), (0.5,) * 3, (0.2,) * 3, True),
    "edm-cifar10-cond": models.SongUNet(classes=10, width=8, multipliers=(1, 1), blocks=1, attention=()),
}


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(pags_published, "network", SMALL.__getitem__)
    monkeypatch.setattr(pags_cases, "run", lambda side, case, module: pags_published.SIDES[side](case))
    monkeypatch.setattr(pags_cases, "has_torch", lambda: False)


def measured(out, *words):
    argv = [*words, "--batch-size", "2", "--repeats", "1", "--out", str(out)]
    assert cli.run(pags_published.main, pags_published.Config, plan=pags_published.plan, argv=argv) == 0
    (path,) = out.glob("pags_published_*.json")
    return json.loads(path.read_text())["rows"]


@pytest.mark.parametrize(("name", "count"), [("resnet50", 25_557_032), ("wrn-28-10", 36_479_194)])
def test_networks_have_the_published_numbers_of_parameters(name, count):
    shapes = architectures.shapes_of(pags_published.network(name), {})
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.usefixtures("in_this_process")
def test_a_network_costs_time_and_memory(tmp_path):
    (row,) = measured(tmp_path, "--works", "cost", "--models", "engstrom")
    expected = jax.tree.leaves(architectures.shapes_of(SMALL["engstrom"], {})["params"])
    assert row["parameters"] == sum(int(np.prod(leaf.shape)) for leaf in expected)
    assert row["batch_size"] == 1
    assert row["cost_ms"] > 0
    assert row["peak_mb"] >= row["load_peak_mb"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_alignment_is_measured_from_files_to_numbers(tmp_path):
    (row,) = measured(tmp_path, "--works", "alignment")
    assert (row["images"], row["batch_size"]) == ("random", 2)
    assert abs(row["cosine"]) < 1
    assert row["similarity"] < 1
    assert row["alignment_ms"] > 0


def test_plans_leave_out_what_cannot_be_and_refuse_files_that_are_not_there(tmp_path):
    config = pags_published.Config(works=("gradients", "cost"), models=("wrn-28-10", "edm-cifar10"))
    cases = [(case["work"], case["model"]) for case in pags_published.plan(config)]
    assert cases == [("gradients", "wrn-28-10"), ("cost", "wrn-28-10"), ("cost", "edm-cifar10")]
    with pytest.raises(ValueError, match="--cifar10: no file"):
        pags_published.plan(pags_published.Config(cifar10=tmp_path / "test_batch.bin"))
