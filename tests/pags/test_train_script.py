"""The training script as a user calls it: flags, a sweep that resumes, what its rows and weights say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import checkpoints, datasets, evaluation, losses, models, recipes, training
from scripts.harness import cli, rows, store
from scripts.pags import fit, train

pytestmark = pytest.mark.slow  # Whole scripts run.

SMALL = ["--epochs", "2", "--batch-size", "16", "--attack-eps", "0.5", "1.0", "--attack-steps", "2", "--steps", "2"]
SMALL += ["--width", "0.25"]
RANDOM = ["--loss", "randomized_smoothing", "--strengths", "0.1", "--augment", "crop-flip"]


def call(*words):
    return train.EXPERIMENT.run(list(words))


def sample(count, seed):
    """Three classes of 8 x 8 images: a bright bar at the top, in the middle or below, under noise."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, count).astype(np.int32)
    x = draw.integers(0, 100, (count, 8, 8, 1))
    for label in range(3):
        x[y == label, 3 * label : 3 * label + 2] += 120
    return x.astype(np.uint8), y


@pytest.fixture
def data(monkeypatch):
    images = datasets.Images(*sample(90, 0), *sample(40, 1), ("top", "middle", "bottom"))
    monkeypatch.setattr(datasets, "load", lambda name, *, folder: images)
    return images


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as end:
        call("--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(train.Config):
        assert "--" + field.name.replace("_", "-") in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-flag", "1"], "no-such-flag"),
        (["--loss", "hinge"], "cross_entropy"),
        (["--dataset", "svhn"], "fashion_mnist"),
        (["--dtype", "float16"], "bfloat16"),
        (["--strengths", "1:10"], "START:STOP:COUNT"),
        (["--strengths", "0:10:3"], "START and STOP > 0"),
        (["--strengths", "1:10:1"], "COUNT >= 2"),
        (["--strengths", "-1"], "number >= 0"),
        (["--strengths", "nan"], "number >= 0"),
        (["--epochs", "0"], ">= 1"),
        (["--validation", "1"], "(0, 1)"),
        (["--learning-rate", "0"], "> 0"),
        (["--attack-eps", "0"], "> 0"),
        (["--repeats", "0"], ">= 1"),
    ],
)
def test_bad_flags_are_refused(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        call(*words)
    assert end.value.code == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words[0] in error
    assert said in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train-rows", "10"], "batch of 16"),
        (["--model", "lenet", "--stem", "7"], "stem"),
        (["--dataset", "cifar10", "--folder", "nowhere"], "nowhere"),
        (["--start", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, said, tmp_path, capsys, request):
    if "--dataset" not in words:
        request.getfixturevalue("data")
    assert call(*SMALL, "--out", str(tmp_path / "run"), *words) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_dry_run_lists_units_and_writes_nothing(tmp_path, capsys):
    words = ["--loss", "cross_entropy", "gradient_norm", "--strengths", "1e-5:1e2:30", "7", "--repeats", "2"]
    assert call("--dry-run", "--out", str(tmp_path / "run"), *words) == 0
    shown = capsys.readouterr().out
    assert f"units of work: {2 * (1 + 31)}" in shown
    assert f"loss=gradient_norm,strength={10 ** (-5 + 7 * 9 / 29):.6g},seed=1" in shown
    assert not (tmp_path / "run").exists()


def test_paper_preset_is_the_references(capsys):
    config = cli.parse(train.Config, ["--preset", "paper"])
    assert (config.dataset, config.model, config.epochs, config.batch_size) == ("cifar10", "resnet18", 200, 128)
    assert (config.learning_rate, config.weight_decay, config.steps, config.clip) == (0.025, 5e-4, 10, None)
    assert len(train.plan(config)) == 1 + 4 * 30
    grids = {"gradient_norm": (-5, 2), "smoothness": (-4, 4), "randomized_smoothing": (-3, 2), "adversarial": (-5, 4)}
    for loss, (low, high) in grids.items():
        units = [unit["strength"] for unit in train.plan(config) if unit["loss"] == loss]
        np.testing.assert_allclose(units, np.logspace(low, high, 30), rtol=1e-5)
    assert recipes.augmentation_of(config.augment, config.dataset).__name__ == "crop_and_flip"
    assert recipes.augmentation_of(config.augment, "fashion_mnist").__name__ == "unchanged"


@pytest.mark.parametrize(
    ("loss", "constant", "strength", "rate"),
    [
        ("gradient_norm", 0.01, 0.01 * 1e5 / 128**2, 0.025),
        ("gradient_norm", 0.5, 0.5 * 1e5 / 128**2, 0.025 / (0.5 / 0.01)),
        ("smoothness", 10.0, 10.0, 0.025),
        ("smoothness", 1e4, 1e4, 0.025 * 10 / 1e4),
        ("randomized_smoothing", 100.0, 100.0, 0.025),
        ("adversarial", 100.0, 100.0, 0.025),
        ("adversarial", 1e4, 1e4, 0.025 * 100 / 1e4),
        ("cross_entropy", 0.0, 0.0, 0.025),
    ],
)
def test_constants_of_the_reference(loss, constant, strength, rate):
    options = {"batch_size": 128, "learning_rate": 0.025}
    got = recipes.strength_and_rate(loss, constant, unit="reference", **options)
    np.testing.assert_allclose(got, (strength, rate), rtol=1e-12)
    assert recipes.strength_and_rate(loss, constant, unit="own", **options) == (constant, 0.025)


@pytest.mark.parametrize(("unit", "scope"), [("own", "example"), ("reference", "batch")])
def test_attacks_of_the_reference_share_a_ball(unit, scope):
    loss = recipes.loss_function("adversarial", steps=7, unit=unit, unroll=True)
    assert loss.func is losses.adversarial
    assert loss.keywords == {"steps": 7, "norm": "l2", "scope": scope, "unroll": True}


def test_radii_in_the_largest_value_are_for_balls_of_ones_own(capsys):
    loss = recipes.loss_function("adversarial", steps=7, unit="own", unroll=True, norm="linf")
    assert (loss.keywords["norm"], loss.keywords["scope"]) == ("linf", "example")
    assert call("--dry-run", "--norm", "linf", "--strength-unit", "reference") == 1
    assert "--strength-unit reference is defined for --norm l2" in capsys.readouterr().err


def test_small_sweep(data, tmp_path, capsys):
    out = tmp_path / "run"
    words = [*SMALL, "--loss", "cross_entropy", "adversarial", "--strengths", "0.5", "--out", str(out)]
    assert call(*words) == 0
    table = {row["loss"]: row for row in store.read_rows(out)}
    assert set(table) == {"cross_entropy", "adversarial"}
    assert (out / "accuracy.png").exists()
    assert not list((out / "checkpoints").iterdir())
    for row in table.values():
        assert row["failure"] is None
        assert (row["train_rows"], len(row["epoch_loss"])) == (81, 2)
        assert row["train_loss"] == row["epoch_loss"][-1]
        assert row["images_per_s"] > 0
        assert row["env.backend"] == "cpu"
        model, variables, _ = models.load(out / row["weights"], kind="classifier")
        logits = np.asarray(jax.jit(model.apply)(variables, jnp.asarray(data.test_x.astype(np.float32) / 255)))
        assert row["test_accuracy"] == np.mean(logits.argmax(1) == data.test_y)
        assert all(attacked <= row["test_accuracy"] for attacked in row["test_attacked"])
        assert (row["attack_norm"], row["test_no_gradient"]) == ("l2", [0] * len(row["attack_eps"]))
        assert row["parameters"] == models.count_parameters(variables)
    done = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent.name in ("units", "models")}
    assert len(done) == 4
    assert call(*words) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert call(*words, "--epochs", "3") == 1
    assert "epochs: 2 there, 3 here" in capsys.readouterr().err


def test_sweep_compiles_once_and_its_memory_is_flat(data, tmp_path, monkeypatch):
    traced, live = [], []
    real = losses.gradient_norm

    def counted(*given, **options):
        traced.append(1)
        return real(*given, **options)

    def watched(config, data, unit):
        (row,) = train.rows_of(config, data, **unit)
        live.append((len(jax.live_arrays()), sum(array.nbytes for array in jax.live_arrays())))
        return row

    monkeypatch.setitem(losses.LOSSES, "gradient_norm", counted)
    config = cli.parse(
        train.Config, [*SMALL, "--loss", "gradient_norm", "--strengths", "0.01:1:4", "--out", str(tmp_path)]
    )
    for unit in train.plan(config):
        watched(config, data, unit)
    assert len(live) == 4
    assert len(traced) == 1
    assert len(set(live[1:])) == 1


class Stop(Exception):
    """Ends a process, as far as a training can tell."""


def interrupted_after(monkeypatch, saves):
    real, calls = checkpoints.save, []

    def save(*given, **options):
        path = real(*given, **options)
        calls.append(path)
        if len(calls) == saves:
            raise Stop
        return path

    monkeypatch.setattr(checkpoints, "save", save)


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which other tests look at: they are drawn of a run's rows alone."""
    monkeypatch.setattr(type(train.EXPERIMENT), "draw_all", lambda *given: None)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("driver", "saves"),
    [  # Also after the last step, which `test_a_fit_whose_training_is_over_only_comes_back` has in every run.
        ("steps", 3), ("scan", 1),
        pytest.param("steps", 10, marks=pytest.mark.weekly), pytest.param("scan", 2, marks=pytest.mark.weekly),
    ],
)  # fmt: skip
def test_resumed_training_ends_with_the_same_bits(driver, saves, data, tmp_path, monkeypatch):
    words = [*SMALL, *RANDOM, "--driver", driver, "--save-minutes", "0"]
    assert call(*words, "--out", str(tmp_path / "whole")) == 0
    (whole,) = store.read_rows(tmp_path / "whole")
    timing = ("wall_s", "train_s", "images_per_s", "config.out")
    out = tmp_path / f"parts-{saves}"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupted_after(patch, saves)
        call(*words, "--out", str(out))
    (stopped,) = (out / "checkpoints").iterdir()
    assert checkpoints.latest(stopped) == (saves if driver == "steps" else 5 * saves)
    assert call(*words, "--out", str(out)) == 0
    (parts,) = store.read_rows(out)
    assert whole.keys() == parts.keys()
    assert all(whole[name] == parts[name] for name in whole if name not in timing)
    assert (tmp_path / "whole" / whole["weights"]).read_bytes() == (out / parts["weights"]).read_bytes()


def test_a_checkpoint_of_another_model_is_refused(data, tmp_path, monkeypatch, capsys):
    words = [*SMALL, "--loss", "cross_entropy", "--save-minutes", "0", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch, pytest.raises(Stop):
        interrupted_after(patch, 1)
        call(*words)
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    fingerprint = rows.from_json((folder / "1" / "about.json").read_text())["about"]["fingerprint"]
    other = {**fingerprint, "model": "vgg11"}
    checkpoints.save(folder, {"w": np.zeros(1)}, step=1, fingerprint=other)
    capsys.readouterr()
    assert call(*words) == 1
    assert 'model: "vgg11" there, "lenet" here' in capsys.readouterr().err


def test_a_model_that_diverges_is_a_row_and_the_sweep_goes_on(data, tmp_path, capsys):
    words = [*SMALL, "--loss", "smoothness", "--strengths", "1e38", "0.1", "--learning-rate", "0.05"]
    assert call(*words, "--out", str(tmp_path)) == 0
    failed, trained = sorted(store.read_rows(tmp_path), key=lambda row: row["failure"] is None)
    assert failed["strength"] == 1e38
    assert failed["failure"].startswith("grad_norm is inf at step 0;")
    assert "test_accuracy" not in failed
    assert trained["failure"] is None
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"{trained['unit']}.safetensors"]
    assert f"{failed['unit']}: grad_norm is inf at step 0" in capsys.readouterr().err


def test_a_run_without_a_model_fails_also_where_the_last_update_breaks_it(data, tmp_path, capsys):
    """One step: its metrics are finite, what it leaves is not."""
    words = ["--epochs", "1", "--batch-size", "81", "--loss", "smoothness", "--strengths", "1e15"]
    assert call(*words, "--learning-rate", "3e38", "--clip", "None", "--out", str(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "no model of" in error
    assert "parameters are not finite after step 0" in error
    (row,) = store.read_rows(tmp_path)
    assert row["failure"].startswith("parameters are not finite")
    assert not (tmp_path / "models").exists()


def test_test_images_choose_nothing(data, tmp_path):
    words = [*SMALL, "--loss", "cross_entropy"]
    config = cli.parse(train.Config, [*words, "--out", str(tmp_path / "a")])
    (unit,) = train.plan(config)
    others = data._replace(test_x=255 - data.test_x, test_y=(data.test_y + 1) % 3)
    (row,) = train.rows_of(config, data, **unit)
    (other,) = train.rows_of(dataclasses.replace(config, out=tmp_path / "b"), others, **unit)
    differing = {name for name in row if row[name] != other[name]} - {"train_s", "images_per_s"}
    assert differing <= {"test_accuracy", "test_attacked"}
    assert "test_accuracy" in differing
    split = recipes.hold_out(data, config.validation, seed=0)
    assert (len(split.train[0]), len(split.validation[0])) == (81, 9)
    together = np.concatenate([split.train[0], split.validation[0]])
    assert sorted(map(bytes, together)) == sorted(map(bytes, data.train_x))
    assert not np.array_equal(split.validation[0], recipes.hold_out(data, config.validation, seed=1).validation[0])


@pytest.mark.usefixtures("undrawn")
def test_drivers_agree_and_bfloat16_computes(data, tmp_path):
    """By the programs of the resumed runs, which draw noise and crops."""
    words = [*SMALL, *RANDOM]
    losses_of = {}
    for driver, dtype in (("steps", "float32"), ("scan", "float32"), ("steps", "bfloat16")):
        out = tmp_path / f"{driver}-{dtype}"
        assert call(*words, "--driver", driver, "--dtype", dtype, "--out", str(out)) == 0
        (row,) = store.read_rows(out)
        losses_of[driver, dtype] = np.asarray(row["epoch_loss"])
        model, variables, _ = models.load(out / row["weights"], kind="classifier")
        assert model.dtype == jnp.dtype(dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    plain = losses_of["steps", "float32"]
    np.testing.assert_allclose(losses_of["scan", "float32"], plain, rtol=1e-4)
    np.testing.assert_allclose(losses_of["steps", "bfloat16"], plain, rtol=0.05)
    assert not np.array_equal(losses_of["steps", "bfloat16"], plain)


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_goes_on_from_a_model(data, tmp_path, capsys):
    """At a rate that rounds to nothing the model stays what it was; another architecture is refused by name."""
    words = [*SMALL, "--loss", "cross_entropy", "--weight-decay", "0"]
    assert call(*words, "--out", str(tmp_path / "first")) == 0
    (first,) = (tmp_path / "first" / "models").iterdir()
    go_on = [*words, "--start", str(first), "--learning-rate", "1e-30"]
    assert call(*go_on, "--out", str(tmp_path / "second")) == 0
    (second,) = (tmp_path / "second" / "models").iterdir()
    before, after = (models.load(path).variables["params"] for path in (first, second))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert call(*go_on, "--width", "0.5", "--out", str(tmp_path / "third")) == 1
    assert f"--start: {first} holds" in capsys.readouterr().err


def test_a_fit_whose_training_is_over_only_comes_back(data, tmp_path):
    task = training.Task(models.create("lenet", classes=3), batch_size=16)
    hyper = training.Hyper(jnp.float32(0), jnp.float32(0.05), training.milestones(1, 5))
    config = fit.Config(out=tmp_path, epochs=1, save_minutes=60.0)
    given = (config, {"a": 1}, task, hyper, jnp.asarray(data.train_x), jnp.asarray(data.train_y))
    (first, means, rate), row = fit.fit(*given, key=jax.random.key(0))
    assert rate is None  # One epoch, which compiles.
    np.testing.assert_allclose(means, first.metrics.mean(0, dtype=float)[None], rtol=1e-12)
    assert row == {"epoch_loss": [means[0, 0]], "train_s": first.train_s, "images_per_s": None}
    (second, *_), _ = fit.fit(*given, key=jax.random.key(0))
    assert int(second.state.step) == 5
    assert np.array_equal(first.metrics, second.metrics)
    assert np.all(first.metrics[:, [0, 2]] > 0)
    assert first.train_s == second.train_s > 0


def test_accuracy_counts_every_example_once_whatever_the_batches():
    draw = np.random.default_rng(0)
    x, y = jnp.asarray(draw.normal(size=(23, 4))), jnp.asarray(draw.integers(0, 4, 23))
    expected = np.mean(np.asarray(x).argmax(1) == np.asarray(y))
    shapes = set()

    @jax.jit
    def judge(x, y, key):
        shapes.add(x.shape)
        return evaluation.correct(lambda x: x, x, y)

    for batch_size in (1, 5, 23, 100):
        assert evaluation.accuracy(judge, x, y, key=jax.random.key(0), batch_size=batch_size) == expected
    assert shapes == {(size, 4) for size in (1, 5, 23, 100)}


def test_an_attack_on_a_linear_classifier_turns_small_margins_only():
    """No attack in a ball of radius r can turn a margin above r; started at the image, it turns every other."""
    draw = np.random.default_rng(1)
    weight = draw.normal(size=(6, 2))
    x, y = draw.uniform(0.3, 0.7, (200, 6)), draw.integers(0, 2, 200)
    direction = weight[:, 1] - weight[:, 0]
    margin = (2 * y - 1) * (x @ direction) / np.linalg.norm(direction)
    given = {"key": jax.random.key(0), "steps": 20, "bounds": None}

    @jax.jit
    def robust(radius):
        return evaluation.robustly_correct(lambda x: x @ weight, jnp.asarray(x), jnp.asarray(y), eps_l2=radius, **given)

    for radius in (0.0, 0.05, 0.1):
        got = robust(radius)
        assert np.all(np.asarray(got)[margin > radius + 1e-9])
        assert not np.any(np.asarray(got)[margin < radius - 1e-9])
        assert 5 < np.sum(margin > radius) < 195


def test_attacks_stay_inside_of_images():
    seen = []

    def apply_fn(x):
        seen.append((float(x.min()), float(x.max()))) if not isinstance(x, jax.core.Tracer) else None
        return jnp.concatenate([x.sum(1, keepdims=True), 2 - x.sum(1, keepdims=True)], 1)

    x = jnp.asarray(np.random.default_rng(2).uniform(0, 1, (20, 2)))
    y = jnp.zeros(20, int)
    evaluation.robustly_correct(apply_fn, x, y, key=jax.random.key(0), eps_l2=5.0, steps=3)
    assert (
        len(seen) == 7
    )  # Twice as it is, for the check that images are judged one by one, and once; each attack's last
    # point, by the attack and by its judge.
    assert all(low >= 0 and high <= 1 for low, high in seen)


def test_what_evaluation_refuses():
    x, y = jnp.zeros((4, 3)), jnp.zeros(4, int)
    for given, said in (
        ((x, y, 0), "at least 1, got 0"),
        ((x[:0], y[:0], 2), "got 0 and 0"),
        ((x, y[:3], 2), "got 3 and 4"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluation.accuracy(lambda *_: 1, *given[:2], key=jax.random.key(0), batch_size=given[2])
    with pytest.raises(ValueError, match="labels must be at least 0, got -1"):
        evaluation.correct(lambda x: x, x, y - 1)
