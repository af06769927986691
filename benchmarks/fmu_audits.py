"""Which audit catches which fault? Faults planted in a release and in the paper's scheme, beside the honest ones.

    python -m benchmarks.fmu_audits                      # 20,000 models a world
    python -m benchmarks.fmu_audits --models 2000 --repeats 4     # a smoke run

Mechanisms and audits are those of ``scripts.fmu.planted_faults``; ``scripts.fmu.faults`` shows fewer at a smaller size.
An audit flags where a lower bound at 95 % exceeds the claim; ``relative`` where it cannot show, at 1 %, that the
unlearned models are nearer to the retrained ones than untouched models are. ``one_run`` is of one model and 30
canaries. ``false_alarms`` is how many of ``repeats`` audits of a tenth of the models flag.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from benchmarks import measure
from scripts.fmu import planted_faults
from scripts.fmu.planted_faults import FAULTS, HONEST, PAPERS, Samples, mechanisms
from scripts.harness import cli

COLUMNS = (
    "scheme", "fault", "claim", "gaussian", "histogram", "kernel", "grid", "one_run", "relative_p", "caught_by",
    "false_alarms", "repeats",
)  # fmt: skip


@dataclass(frozen=True)
class Config(cli.Common):
    """Audit honest and faulty mechanisms."""

    out: Path = Path("benchmarks/results")
    models: cli.Count = 20_000
    """Models of each world."""
    repeats: cli.Count = 100
    """Audits of each honest mechanism for the rate of false alarms."""


def plan(config: Config) -> list[str]:
    """Every mechanism."""
    del config
    return [f"release {fault}" for fault in FAULTS] + [f"paper {fault}" for fault in PAPERS]


def main(config: Config) -> None:
    """Audits every mechanism and publishes the table."""
    jax.config.update("jax_enable_x64", True)
    table = []
    for scheme, fault, draw in mechanisms():
        table.append(audited(scheme, fault, draw, config.models, config.repeats, config.seed))
        print(f"{scheme} {fault}: done", file=sys.stderr)
    measure.publish("fmu_audits", table, COLUMNS, command=measure.command("benchmarks.fmu_audits"), out=config.out)


def audited(scheme: str, fault: str, draw: Callable[..., Samples], models: int, repeats: int, seed: int) -> dict:
    """A row of the table."""
    key = jax.random.fold_in(jax.random.key(seed), hash_of(scheme + fault))
    found = planted_faults.bounds(scheme, draw(key, models), jax.random.fold_in(key, 1))
    if scheme == "release":
        found["one_run"] = planted_faults.one_run(fault, seed=seed).mu
    caught = ", ".join(planted_faults.caught_by(found))
    row: dict[str, Any] = {"scheme": scheme, "fault": fault, "caught_by": caught} | found
    if fault in HONEST:
        few = {"models": max(models // 10, 200), "repeats": repeats}
        row |= {"false_alarms": planted_faults.false_alarms(scheme, draw, jax.random.fold_in(key, 2), **few)}
        row |= {"repeats": repeats}
    return row


def hash_of(name: str) -> int:
    """A number for a name, the same in every process."""
    return int.from_bytes(name.encode()[-4:], "little") % 2**31


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
