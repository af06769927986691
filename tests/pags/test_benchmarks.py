import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import measure, pags_cases, pags_fashion, pags_gradients, pags_measures, pags_training
from scripts import registry
from scripts.harness import cli

SMOKE = ["--models", "lenet", "--batch-size", "8"]


@pytest.fixture
def in_this_process(monkeypatch):
    """Sides run here instead of in a process each, which takes most of a small case's time."""
    before = jax.config.jax_default_matmul_precision

    def run(side, case, module):
        benchmarks = (pags_training, pags_gradients, pags_measures)
        return {benchmark.__name__: benchmark for benchmark in benchmarks}[module].SIDES[side](case)

    monkeypatch.setattr(pags_cases, "run", run)
    yield
    jax.config.update("jax_default_matmul_precision", before)


def measured(benchmark, *words, out):
    name = benchmark.__name__.rpartition(".")[2]
    smoke = [] if benchmark is pags_measures else SMOKE
    argv = [*smoke, "--repeats", "1", *words, "--out", str(out)]
    assert cli.run(benchmark.main, benchmark.Config, plan=benchmark.plan, argv=argv) == 0
    (path,) = out.glob(f"{name}*.json")
    return json.loads(path.read_text())["rows"]


@pytest.mark.parametrize(
    ("benchmark", "words", "side", "forward_passes"),
    [
        (pags_training, ["--losses", "cross_entropy"], "unrolled", 3),
        (pags_gradients, ["--targets", "log_prob"], "jax", 2),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_rows_hold_times_and_the_share_of_the_peak(benchmark, words, side, forward_passes, tmp_path):
    (row,) = measured(benchmark, *words, "--peak-tflops", "2", out=tmp_path)
    # Multiply-adds of LeNet's forward pass; backward passes by weights and by inputs take as many each, except that
    # training needs none by the images.
    first, rest = 26**2 * 9 * 32, 24**2 * 9 * 32 * 64 + 9216 * 128 + 128 * 10
    gflop = 2e-9 * ((first + rest) * forward_passes - first * (forward_passes == 3))
    assert row["gflop_per_image"] == pytest.approx(gflop, rel=0.05)  # The rest is elementwise, and the update.
    assert row["jax_images_per_s"] == pytest.approx(8e3 / row[f"{side}_ms"])
    share = row["jax_images_per_s"] * row["gflop_per_image"] / 1e3 / row["peak_tflops"]
    assert row["jax_peak_share"] == pytest.approx(share)
    if pags_cases.has_torch():
        fastest = min(row["torch_ms"], row["torch_nhwc_ms"])
        assert row["times_torch"] == pytest.approx(row[f"{side}_ms"] / fastest)
    else:
        assert not any(name.startswith("torch") for name in row)


@pytest.mark.slow
def test_a_side_runs_in_a_process_of_its_own():
    row = pags_cases.run("jax", pags_cases.Case("lenet", "logit", "float32", 4, 0, 1), "benchmarks.pags_gradients")
    assert row["jax_ms"] > 0
    assert row["gflop_per_image"] > 0


def test_a_loop_is_timed_only_where_the_loss_has_one():
    config = pags_training.Config(models=("lenet",))
    sides = {case["work"]: pags_training.sides_of(pags_cases.Case(**case)) for case in pags_training.plan(config)}
    assert {work for work, names in sides.items() if "loop" in names} == {"adversarial_3", "adversarial_10"}


def test_a_peak_for_each_precision_is_asked_for(capsys):
    words = ["--precisions", "float32", "bfloat16", "--peak-tflops", "2"]
    assert cli.run(pags_training.main, pags_training.Config, plan=pags_training.plan, argv=words) == 1
    assert "a number for each of 2 precisions, got 1" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_the_peer_computes_the_same(tmp_path):
    pytest.importorskip("torch")
    (step,) = measured(pags_training, "--check", "--losses", "gradient_norm", out=tmp_path / "step")
    assert max(step[name] for name in ("logits", "loss", "update")) < 1e-4
    (gradients,) = measured(pags_gradients, "--check", "--targets", "log_prob", out=tmp_path / "gradients")
    assert gradients["gradients"] < 1e-5


MEASURES = ["--latent", "4", "--widths", "4", "--model", "lenet", "--items", "1"]


@pytest.mark.usefixtures("in_this_process")
def test_measures_are_timed_an_item(tmp_path):
    (row,) = measured(pags_measures, "--measures", "lpips", *MEASURES, out=tmp_path)
    assert row["jax_per_s"] == pytest.approx(1e3 / row["jax_ms"])
    if pags_cases.has_torch():
        assert row["times_reference"] == pytest.approx(row["reference_ms"] / row["jax_ms"])
        assert row["times_torch"] == pytest.approx(row["jax_ms"] / min(row["torch_ms"], row["torch_nhwc_ms"]))


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_peers_measures_are_ours(tmp_path):
    pytest.importorskip("torch")
    rows = measured(pags_measures, "--check", *MEASURES, out=tmp_path)
    assert [row["work"] for row in rows] == ["tangent_basis", "manifold_robustness", "lpips"]
    for row in rows:
        assert max(row[side] for side in ("torch", "torch_nhwc", "reference")) < 1e-4


def test_a_part_of_the_cases_replaces_its_rows_alone(tmp_path, capsys):
    def publish(command, **rows):
        table = [{"work": work, "ms": ms} for work, ms in rows.items()]
        measure.publish("times", table, ("work", "ms"), command=command, out=tmp_path, case=("work",))
        content = json.loads((tmp_path / "times.json").read_text())
        return content, {row["work"]: (row["ms"], row["command"]) for row in content["rows"]}

    publish("first", plain=1.0, loop=2.0)
    content, rows = publish("second", loop=3.0)
    assert rows == {"plain": (1.0, "first"), "loop": (3.0, "second")}
    (tmp_path / "times.json").write_text(json.dumps(content | {"processor": "another"}))
    assert publish("third", loop=4.0)[1] == {"loop": (4.0, "third")}
    capsys.readouterr()


def test_difference_is_relative():
    assert pags_cases.difference(np.array([3.0, 0.0]), np.array([3.0, 4.0])) == pytest.approx(0.8)


def test_every_step_of_the_sweep_is_a_command_and_reads_steps_before_it(tmp_path):
    names = []
    out = tmp_path / "a folder"
    for name, (experiment, words) in pags_fashion.steps_of(pags_fashion.Config(out=out)).items():
        found = registry.experiment(experiment)
        config = cli.parse(found.config, words)
        cli.check(config)
        assert config.preset in ("none", *found.config.PRESETS)
        assert words[-2:] == ["--out", str(out / name)]
        read = {Path(word).relative_to(out).parts[0] for word in words[:-2] if str(out) in word}
        assert read <= set(names), name
        names.append(name)


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match=r"--steps: expected some of pags_train, .*, got pags_score"):
        pags_fashion.steps_of(pags_fashion.Config(steps=("pags_score",)))


def test_what_is_published_of_the_sweep(tmp_path):
    run = tmp_path / "runs" / "pags_robustness"
    (run / "values").mkdir(parents=True)
    (run / "rows.csv").write_text("on,off\n1,2\n")
    (run / "rows.jsonl").write_text("{}\n")
    (run / "figure.png").write_bytes(b"png")
    np.savez(run / "values" / "model.npz", on=np.arange(3.0))
    pags_fashion.publish(tmp_path / "runs", ["pags_robustness"], tmp_path / "published")
    assert gzip.decompress((tmp_path / "published" / "pags_robustness.csv.gz").read_bytes()) == b"on,off\n1,2\n"
    with np.load(tmp_path / "published" / "pags_robustness_values.npz") as file:
        assert file["model/on"].tolist() == [0, 1, 2]
    assert {path.name for path in (tmp_path / "published").glob("*.png")} == {"figure.png"}
