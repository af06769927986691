"""The registry of experiments: complete, cheap to ask, and one small experiment that resumes, refuses and reports."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

import pytest

from scripts import registry, reproduce
from scripts.harness import cli, experiment, names, plot, progress, report, rows, store

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = [registry.experiment(name) for name in registry.NAMES]


# ------------------------------------------------------------------------------------------------ what is declared
def test_every_experiment_is_named_once_and_by_its_file():
    files = [path for package in ("fmu", "pags") for path in (ROOT / "scripts" / package).glob("*.py")]
    declared = {f"{path.parent.name}_{path.stem}" for path in files if "\nEXPERIMENT = " in path.read_text()}
    assert sorted(registry.NAMES) == sorted(declared)
    assert [found.name for found in EXPERIMENTS] == list(registry.NAMES)
    readme = (ROOT / "scripts" / "README.md").read_text()
    assert [name for name in registry.NAMES if f"scripts.{name.replace('_', '.', 1)}`" not in readme] == []


def test_names_are_those_of_the_packages_registries():
    """Flags choose from names that are readable without JAX; the packages hold what they stand for."""
    import fmu_jax
    from fmu_jax import penalties
    from pags_jax import balls, datasets, evaluation, gradients, losses, models, recipes
    from pags_jax.models import architectures, layers
    from scripts.pags import alignment

    assert set(get_args(names.Penalty)) == set(penalties.PENALTIES)
    assert {*get_args(names.DataSet), "synthetic"} == set(fmu_jax.datasets.GROUPS)
    assert set(get_args(names.Loss)) == set(losses.LOSSES) == set(recipes.RECIPES)
    assert {*get_args(names.BesideDistractor), *get_args(names.Unlabelled)} < set(datasets.NAMES)
    for name in get_args(names.Model):
        assert architectures.kind_of(models.create(name, classes=2)) == "classifier"  # As files hold it.
    assert get_args(names.Activation) == get_args(layers.Activation)
    assert get_args(names.Norm) == get_args(balls.Norm)
    assert get_args(names.Attack) == get_args(evaluation.Attack)
    assert set(get_args(names.Target)) == set(alignment.pags_jax.alignment.PAIRINGS) < set(get_args(gradients.Target))
    assert get_args(names.StrengthUnit) == get_args(recipes.Unit)
    assert get_args(names.Augment) == get_args(recipes.Augment)


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_parts_name_what_is_there(preset):
    every = reproduce.runs(reproduce.Config(preset=preset))
    assert {run.experiment.name.split("_")[0] for run in every.values()} == (
        {"pags"} if preset == "cifar10" else {"fmu", "pags"}
    )
    for name, run in every.items():
        cli.check(run.config)
        assert run.config.out.name == name
        earlier = list(every)[: list(every).index(name)]
        sources = [source for source in run.part.reads.values() if source in every]
        assert set(sources) <= set(earlier), (name, sources)


def test_the_sweep_on_cifar10_starts_from_published_models():
    folder = ROOT / "benchmarks" / "results" / "cifar10"
    every = reproduce.runs(reproduce.Config(preset="cifar10", models=folder, cifar10=Path("my images"), seed=4))
    assert not set(reproduce.MODELS) & set(every)
    given = {field: getattr(run.config, field) for run in every.values() for field in run.part.files}
    assert given == {name: folder / f"{name}.safetensors" for name in ("autoencoder", "denoiser")} | {
        "start": folder / "undefended.safetensors"
    }
    assert all(path.is_file() for path in given.values())
    training = {name: run.config for name, run in every.items() if run.experiment.name == "pags_train"}
    assert all(config.folder == Path("my images") for config in training.values())
    # No judge is of the seed of those that it judges.
    assert {name: config.seed for name, config in training.items()} == {
        "pags_train": 4, "pags_judge": 5, "pags_robust_judge": 5,
    }  # fmt: skip
    judges = {name: run.config.judge.name for name, run in every.items() if run.experiment.name == "pags_generation"}
    assert judges == {"pags_generation": "pags_judge", "pags_generation_robust_judge": "pags_robust_judge"}


@pytest.mark.parametrize("words", [["--sweeps", "2"], ["--sweeps", "3", "--seed", "1"], []])
def test_the_sweep_on_cifar10_with_other_seeds_can_be_done_to_its_end(words, capsys):
    """What would be refused after hours: a judge of the sweep's own seeds, or a file that no part writes."""
    words = ["--preset", "cifar10", *words]
    config = cli.parse(reproduce.Config, words)
    every = reproduce.runs(config)
    units = {name: run.experiment.plan(run.config) for name, run in every.items() if "trained" not in run.part.reads}
    seeds = {unit["seed"] for unit in units["pags_train"]}
    assert seeds == set(range(config.seed, config.seed + config.sweeps))
    written = [store.unit_name(unit) for unit in units["pags_undefended"]]
    for name in ("pags_judge", "pags_robust_judge"):
        assert not seeds & {unit["seed"] for unit in units[name]}
    for name in ("pags_train", "pags_robust_judge"):
        assert every[name].config.start.relative_to(config.out).parts[0] == "pags_undefended"
        assert every[name].config.start.stem in written
    assert cli.run(reproduce.main, reproduce.Config, plan=reproduce.plan, argv=[*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  pags_robustness/") for line in shown) == len(units["pags_train"])
    # How many there are of the others, nobody knows before.
    for name in ("pags_generation", "pags_generation_robust_judge", "pags_certify", "pags_converse"):
        of_it = [line for line in shown if line.startswith(f"  {name}/")]
        assert of_it == [f"  {name}/those that the finished pags_train leads to"]


def test_models_to_start_from_are_asked_for_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"--models: only --preset cifar10 starts .*, --preset quick does not"):
        reproduce.runs(reproduce.Config(preset="quick", models=tmp_path))
    with pytest.raises(ValueError, match=r"--models: .* has no undefended.safetensors; leave --models out"):
        reproduce.runs(reproduce.Config(preset="cifar10", models=tmp_path))


def test_a_figure_is_published_once_and_another_of_its_name_beside_it(tmp_path):
    out, folder = tmp_path / "run", tmp_path / "published"
    for part, content in (("one", b"a"), ("same", b"a"), ("other", b"b")):
        (out / part).mkdir(parents=True)
        (out / part / "panel.png").write_bytes(content)
        (out / part / "rows.csv").write_text(f"part\n{part}\n")
    sections = [report.Section(part, [report.Figure(out / part / "panel.png", part)]) for part in ("same", "other")]
    reproduce.publish(folder, out, dict.fromkeys(("one", "same", "other")), {"title": "T", "lead": "L"}, sections)
    names = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert names == {"panel.png": b"a", "other_panel.png": b"b"}
    page = (folder / "README.md").read_text()
    assert "(panel.png)" in page
    assert "(other_panel.png)" in page
    assert len(list(folder.glob("*.csv.gz"))) == 3


def test_reproduce_plans_every_part(capsys):
    config = cli.parse(reproduce.Config, ["--preset", "quick"])
    planned = {line.split("/")[0] for line in reproduce.plan(config)}
    assert planned == set(reproduce.runs(config))
    seeds = {run.config.repeats for name, run in reproduce.runs(config).items() if name == "fmu_removal"}
    assert seeds == {1}


def test_hsls_joins_the_data_sets():
    every = reproduce.runs(reproduce.Config(hsls=Path("people.csv")))
    assert every["fmu_removal"].config.datasets == ("compas", "adult", "hsls")
    assert every["fmu_audit"].config.datasets == ("compas",)


def test_help_imports_no_jax():
    """Of all scripts in one process: each --help, then what was imported."""
    code = (
        "import contextlib, io, sys\nfrom scripts import registry, reproduce\nfrom scripts.harness import cli\n"
        "for config in [reproduce.Config, *(registry.experiment(name).config for name in registry.NAMES)]:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        cli.parse(config, ['--help'])\n"
        "print([name for name in ('jax', 'flax', 'optax', 'scipy', 'orbax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("found", EXPERIMENTS, ids=registry.NAMES)
def test_help_names_every_flag_and_bad_flags_are_refused(found, capsys):
    with pytest.raises(SystemExit) as end:
        found.run(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    fields = [field.name for field in dataclasses.fields(found.config)]
    assert [name for name in fields if "--" + name.replace("_", "-") not in shown] == []
    count = next(f"--{name}" for name in ("repeats", "images", "epochs", "eps") if name in fields)
    for words in (["--no-such-flag", "1"], [count, "0"], [count, "many"], ["--seed", "-1"]):
        with pytest.raises(SystemExit) as end:
            found.run(words)
        assert end.value.code == 2
        assert words[0].lstrip("-") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pags_certify", "pags_converse", "pags_generation"])
def test_experiments_on_scores_offer_no_flags_of_tangent_spaces(name, tmp_path, capsys):
    """They read a denoiser alone; a run that was given the flags which did nothing is gone on with."""
    found = registry.experiment(name)
    tangents = {"manifold", "autoencoder", "rank", "neighbours", "pixels", "tangent_sigma_pm1"}
    assert not tangents & {field.name for field in dataclasses.fields(found.config)}
    assert set(found.config.DROPPED) == tangents
    assert tangents < {field.name for field in dataclasses.fields(registry.experiment("pags_alignment").config)}
    stored = {"experiment": name, **rows.flatten(found.config(), without=store.RUN_FIELDS)}
    stored |= {"manifold": "autoencoder", "autoencoder": "runs/a.safetensors", "rank": 16, "tangent_sigma_pm1": 0.2}
    with store.open_run(tmp_path / "run", {**stored, "neighbours": 64, "pixels": "all"}, environment={}) as run:
        run.do(["unit"], lambda unit: [{"radius": 0.5}])
    with store.open_run(tmp_path / "run", found.config(), inputs={"experiment": name}, environment={}) as run:
        run.do(["unit"], lambda unit: pytest.fail("measured anew"))
    assert [(row["radius"], row["config.rank"]) for row in store.read_rows(tmp_path / "run")] == [(0.5, 16)]


@pytest.mark.parametrize("name", [name for name in registry.NAMES if name.startswith("fmu_")])
def test_dry_run_lists_units_and_writes_nothing(name, tmp_path, capsys):
    out = tmp_path / "run"
    assert registry.experiment(name).run(["--dry-run", "--repeats", "2", "--out", str(out)]) == 0
    assert "seed=1" in capsys.readouterr().out
    assert not out.exists()


# ---------------------------------------------------------------------------------------------- a small experiment
@dataclass(frozen=True)
class Toy(cli.Common):
    """Square numbers."""

    PRESETS: ClassVar = {"quick": {"numbers": (1,)}}

    numbers: tuple[cli.Count, ...] = (1, 2, 3)
    """Which numbers."""
    power: cli.Count = 2
    """Their power."""


@pytest.fixture
def toy():
    """An experiment, and what it was asked to do."""
    calls = []

    def rows_of(config, ready, *, number):
        calls.append(number)
        if number == 13:
            raise ValueError("--numbers: 13 is bad luck")
        return [{"power": number**config.power + ready}]

    def setup(config):
        calls.append("setup")
        if config.power > 9:
            raise ValueError(f"--power: expected at most 9, got {config.power}")
        return 0

    def draw(config, table):
        figure, axes = plot.figure()
        axes[0, 0].plot([row["power"] for row in table])
        plot.save(figure, config.out / "powers.png")

    def section(results):
        lines = report.medians(results.rows, {"number": "number"}, {"power": "its power"})
        return ["Numbers.", report.Table(lines, "Powers of numbers."), *results.figures("powers.png", "rising")]

    found = experiment.Experiment(
        "toy", Toy, rows_of, lambda config: [{"number": number} for number in config.numbers], setup=setup, draw=draw,
        finished=lambda config, unit: calls.append(f"finished {unit['number']}"), heading="Powers", section=section,
        claims=lambda results: [experiment.Claim("Powers grow.", [True], "1 to 9")],
    )  # fmt: skip
    return found, calls


def test_a_run_says_how_far_it_is_and_where_its_results_are(toy, tmp_path, capsys, monkeypatch):
    found, calls = toy
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert found.run(["--out", str(tmp_path / "run")]) == 0
    assert calls == ["setup", 1, "finished 1", 2, "finished 2", 3, "finished 3"]
    shown = capsys.readouterr().out
    for line in ("run: 3 units to do", "run: 2 of 3 units done", "Powers of numbers.", "3       9"):
        assert line in shown
    assert f"results: {tmp_path / 'run'} (rows.csv, rows.jsonl, powers.png)" in shown


def test_a_finished_run_does_nothing_again_and_another_one_is_refused(toy, tmp_path, capsys):
    found, calls = toy
    words = ["--out", str(tmp_path / "run")]
    assert found.run(words) == 0
    units = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "units").iterdir()}
    calls.clear()
    assert found.run(words) == 0
    assert calls == []
    assert found.run([*words, "--power", "3"]) == 1
    assert "power: 2 there, 3 here" in capsys.readouterr().err
    assert dataclasses.replace(found, name="other").run(words) == 1
    assert 'experiment: "toy" there, "other" here' in capsys.readouterr().err
    assert units == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "units").iterdir()}


def test_a_stopped_run_has_its_rows_and_goes_on(toy, tmp_path, capsys, monkeypatch):
    """Rows are there to look at as units end; what is finished is not done again."""
    found, calls = toy
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    words = ["--out", str(tmp_path / "run"), "--numbers", "1", "2", "13"]
    assert found.run(words) == 1
    assert capsys.readouterr().err == "error: --numbers: 13 is bad luck\n"
    assert [line.split(",")[:2] for line in (tmp_path / "run" / "rows.csv").read_text().splitlines()[1:]] == [
        ["1", "1"], ["2", "4"],
    ]  # fmt: skip
    assert not (tmp_path / "run" / "rows.jsonl").exists()
    calls.clear()
    assert found.run(words) == 1
    assert calls == ["setup", 13]


def test_what_cannot_be_set_up_leaves_no_folder(toy, tmp_path, capsys):
    found, _ = toy
    assert found.run(["--power", "10", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "error: --power: expected at most 9, got 10\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side_by_side", ["1"])
def test_reproduce_runs_parts_and_reports_them(side_by_side, toy, tmp_path, capsys, monkeypatch, users_numerics):
    """The summary first, then terms, then a section for each experiment with links to its rows."""
    found, _ = toy
    parts = (
        experiment.Part({"none": {"numbers": (2, 4)}}),
        experiment.Part({"none": {"numbers": (5,)}}, "toy_again"),
    )
    found = dataclasses.replace(found, parts=parts)
    monkeypatch.setattr(registry, "NAMES", ("toy",))
    monkeypatch.setattr(registry, "experiment", lambda name: found)
    words = ["--out", str(tmp_path / "all"), "--side-by-side", side_by_side, "--publish", str(tmp_path / "published")]
    assert cli.run(reproduce.main, reproduce.Config, plan=reproduce.plan, argv=words) == 0
    shown = capsys.readouterr().out
    assert "reproduce: toy finished, 1 of 2 parts" in shown
    assert "Powers grow." in shown
    assert f"report: {tmp_path / 'all' / 'report.html'}" in shown
    page = (tmp_path / "all" / "report.html").read_text()
    places = [page.index(text) for text in ('id="s1">Summary', "Powers grow.", 'id="s2">Terms', 'id="s3">Powers')]
    assert places == sorted(places)
    assert 'class="verdict shown"' in page
    assert '<a href="toy/rows.csv">toy/rows.csv</a>' in page
    assert [row["power"] for row in store.read_rows(tmp_path / "all" / "toy_again")] == [25]
    markdown = (tmp_path / "published" / "README.md").read_text()
    assert "| 2 | 4 |" in markdown
    assert "[toy.csv.gz](toy.csv.gz)" in markdown
    assert {"toy.csv.gz", "toy_again.csv.gz", "powers.png"} <= {p.name for p in (tmp_path / "published").iterdir()}


@pytest.mark.slow
def test_benchmark_smoke(tmp_path):
    from benchmarks import fmu_removal

    words = ["--cases", "synthetic", "--sizes", "2000", "--repeats", "1", "--out", str(tmp_path)]
    assert cli.run(fmu_removal.main, fmu_removal.Config, plan=fmu_removal.plan, argv=words) == 0
    content = json.loads((tmp_path / "fmu_removal.json").read_text())
    assert [row["case"] for row in content["rows"]] == ["2000"]
    assert all(row["fair_newton_ms"] > 0 and row["sklearn_refit_ms"] > 0 for row in content["rows"])
