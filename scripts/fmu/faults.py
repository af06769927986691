"""Which audit catches which planted fault, and do they leave honest mechanisms alone?

    python -m scripts.fmu.faults --out runs/faults

``fmu_jax.audit.faults`` has the mechanisms, honest and faulty, and the audits. There is one row for each mechanism.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from scripts.harness import cli, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

Mechanism = Literal[
    "honest", "at_admitted", "no_removal", "step_0.9", "half_step", "wrong_sign", "reused_noise", "half_scale",
    "smooth", "rounded", "stream",
]  # fmt: skip


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
    key = jax.random.fold_in(jax.random.key(seed), get_args(Mechanism).index(mechanism))
    sizes = {"models": config.models, "alarms": config.alarms}
    return [fmu_jax.audit.faults.audit_mechanism(mechanism, seed=seed, key=key, **sizes)]


def section(results: Results) -> list[report.Block]:
    """Which audit catches what, and the false alarms."""
    table, audits, lines = results.rows, fmu_jax.audit.faults.AUDITS, fmu_jax.audit.faults.lines(results.rows)
    faults, honest = (report.where(table, honest=kind) for kind in (False, True))
    alarms, count = sum(row["false_alarms"] for row in honest), len(honest) * table[0]["config.alarms"]
    return [
        f"These audits can fail. Each mechanism is run {table[0]['config.models']} times with the rows unlearned and "
        "as often with the model retrained without them, and the audits try to tell the two apart. A mechanism is "
        "caught in either of two cases: a lower bound, at 95 %, exceeds its claim (mu for a release of four models, "
        "epsilon for the paper's scheme); or a test cannot show, with a p-value of at most 1 %, that unlearned "
        "models are nearer to retrained ones than untouched models are.",
        f"The audits catch {sum(bool(row['caught_by']) for row in faults)} of {len(faults)} planted faults. They "
        f"raise {alarms} false alarms in {count} further audits of honest mechanisms; up to 5 % are allowed.",
        report.Table(lines, "What each audit shows of each mechanism.", fold=False),
        report.Terms({"p-value" if name == "relative" else title: text for name, (title, text) in audits.items()}),
    ]


#: Those that share their programs.
FEW = {"mechanisms": ("at_admitted", "no_removal", "step_0.9", "wrong_sign"), "models": 2000, "alarms": 4}
EXPERIMENT = Experiment(
    "fmu_faults", Config, rows_of, heading="Audits that can fail: which catches which fault", section=section,
    parts=(Part({"none": FEW, "full": {}, "paper": {}}),), x64=True,
)  # fmt: skip
EXPERIMENT.run_as(__name__)
