"""Which audit catches which planted fault, and do they leave honest mechanisms alone?

    python -m scripts.fmu.faults --out runs/faults

The mechanisms, honest and faulty, are those of ``fmu_jax.audit.faults``. Each runs many times in both worlds, with the
rows unlearned and with the model retrained without them. Audits compute lower bounds at 95 % of its epsilon or mu
(``gaussian`` uses means and variances, ``histogram`` and ``kernel`` the density, ``grid`` the last digits), and the
p-value of a test that it is nearer to retraining than an untouched model. ``one_run`` needs a single published model,
of rows with 30 canaries. An audit raises an alarm if a bound exceeds the claim, or if the test cannot reject at 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from scripts.harness import cli, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

Mechanism = Literal[
    "honest", "at_admitted", "no_removal", "step_0.9", "half_step", "wrong_sign", "reused_noise", "half_scale",
    "smooth", "rounded", "stream",
]  # fmt: skip
#: What each mechanism is, in plain words.
WORDS = {
    "honest": "release as it is: removed, refreshed when due, fresh noise each time",
    "at_admitted": "release at its limit: as far from retraining as it may be",
    "no_removal": "release, but nothing is removed",
    "step_0.9": "release, but a tenth of the removal is left out",
    "half_step": "release, but half of the removal is left out",
    "wrong_sign": "release, but the removal goes the wrong way",
    "reused_noise": "release, but the same noise is added every time",
    "half_scale": "release at its limit, but with half the noise",
    "smooth": "the paper's scheme as it is",
    "rounded": "the paper's scheme, its parameters rounded to four decimals",
    "stream": "the paper's scheme as a stream that refreshes on its own epsilon",
}
#: What each audit looks at.
AUDITS = {
    "gaussian": "means and variances", "histogram": "histogram", "kernel": "kernel", "grid": "last digits",
    "one_run": "one run", "relative": "nearer to retraining?",
}  # fmt: skip


@dataclass(frozen=True)
class Config(cli.Repeated):
    """Audit honest and faulty mechanisms."""

    PRESETS: ClassVar = {"quick": {"models": 1000, "alarms": 4}, "paper": {"models": 20_000, "alarms": 100}}
    AXES: ClassVar = {"mechanism": "mechanisms"}

    mechanisms: tuple[Mechanism, ...] = get_args(Mechanism)
    """Mechanisms to audit."""
    models: cli.Count = 6000
    """Number of models of each world."""
    alarms: cli.Count = 20
    """Number of further audits of each honest mechanism, in which no alarm should be raised."""


def rows_of(config: Config, *, mechanism: str, seed: int) -> list[Row]:
    """What the audits say of one mechanism."""
    faults = fmu_jax.audit.faults
    scheme = "paper" if mechanism in faults.PAPERS else "release"
    key = jax.random.fold_in(jax.random.key(seed), get_args(Mechanism).index(mechanism))
    draw = faults.mechanism(mechanism)
    found = faults.bounds(scheme, draw(key, config.models), jax.random.fold_in(key, 1))
    if scheme == "release":
        found["one_run"] = faults.one_run(mechanism, seed=seed).mu
    honest = mechanism in faults.HONEST
    row = {"scheme": scheme, "honest": honest, "caught_by": ", ".join(faults.caught_by(found))} | found
    if honest:
        size = {"models": config.models, "repeats": config.alarms}
        row["false_alarms"] = faults.false_alarms(scheme, draw, jax.random.fold_in(key, 2), **size)
    return [row]


def section(results: Results) -> list[report.Block]:
    """Which audit catches what, and the false alarms."""
    table, lines = results.rows, []
    for row in table:
        line = {"mechanism": WORDS[row["mechanism"]], "claims": row["claim"]}
        line |= {title: row.get(name) for name, title in AUDITS.items() if name != "relative"}
        line |= {"p-value": row.get("relative_p"), "caught by": words_of(row["caught_by"])}
        lines.append(line)
    faults = [row for row in table if not row["honest"]]
    honest = [row for row in table if row["honest"]]
    alarms, audits = sum(row["false_alarms"] for row in honest), len(honest) * table[0]["config.alarms"]
    return [
        f"These audits can fail. Each mechanism is run {table[0]['config.models']} times with the rows unlearned and "
        "as often with the model retrained without them, and the audits try to tell the two apart. A mechanism is "
        "caught in either of two cases: a lower bound, at 95 %, exceeds its claim (mu for a release of four models, "
        "epsilon for the paper's scheme); or a test cannot show, with a p-value of at most 1 %, that unlearned "
        "models are nearer to retrained ones than untouched models are.",
        f"The audits catch {sum(bool(row['caught_by']) for row in faults)} of {len(faults)} planted faults. They "
        f"raise {alarms} false alarms in {audits} further audits of honest mechanisms; up to 5 % are allowed.",
        report.Table(lines, "What each audit shows of each mechanism.", fold=False),
        report.Terms({
            "means and variances": "Compares averages and spreads along a few directions; catches what moves a model.",
            "histogram": "Compares the densities along the direction that tells most; catches gaps in them.",
            "kernel": "Compares densities in all directions at once; catches what no single direction shows.",
            "last digits": "Looks at the digits that are printed last; catches rounding.",
            "one run": "Bets on which of 30 planted rows were inside of a single model; catches what is left in it.",
            "p-value": "Asks whether unlearning came nearer to retraining at all; catches removals that did nothing.",
        }),
    ]  # fmt: skip


def words_of(caught: str) -> str:
    """Names of audits in plain words; "nothing" if there are none."""
    return ", ".join(AUDITS[name] for name in caught.split(", ")) if caught else "nothing"


#: Those that share their programs.
FEW = {"mechanisms": ("at_admitted", "no_removal", "step_0.9", "wrong_sign"), "models": 2000, "alarms": 4}
EXPERIMENT = Experiment(
    "fmu_faults", Config, rows_of, heading="Audits that can fail: which catches which fault", section=section,
    parts=(Part({"none": FEW, "full": {}, "paper": {}}),), x64=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
