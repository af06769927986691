"""Converts published weights to this project's safetensors, with their licence.

    python -m scripts.pags.convert --source cifar10_l2_wrn28-10_cutmix_ddpm_v2.pt --to rebuffi.safetensors
    python -m scripts.pags.convert --source network.pt --to network.safetensors --licence "MIT, (c) 2024 A. Author"

`pags_jax.models.load_pretrained` reads the result, which holds the licence as well. EDM's forbids commercial use.
"""

import dataclasses
import sys
from pathlib import Path

from pags_jax.models import read_pretrained, save
from scripts.harness import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Base):
    """Convert published weights to safetensors."""

    source: str
    """File of the publisher, or a name in pags_jax.models.catalogue."""
    to: Path
    """File to write, ending in .safetensors; an existing file is never replaced."""
    folder: Path | None = None
    """Folder of the file, if --source is a name in the catalogue."""
    entry: str = ""
    """Name of the model to convert, such as ema, if the file holds several."""
    licence: str = ""
    """Licence of the weights; required for a file that is not in the catalogue."""


def main(config: Config) -> None:
    """Read the weights, print what was found, and write them."""
    if config.to.suffix != ".safetensors":
        raise ValueError(f"--to must end in .safetensors, got {config.to}")
    if config.to.exists():
        raise ValueError(f"{config.to} is there already; pass another --to")
    model, variables, about = read_pretrained(config.source, folder=config.folder, entry=config.entry or None)
    licence = about.get("licence") or config.licence
    if not licence:
        raise ValueError(f"{config.source} is in no catalogue: pass the licence of its weights as --licence")
    save(config.to, model, variables, about | {"licence": licence})
    for name in ("kind", "network", "classes", "parameters", "tensors", "sha256"):
        print(f"{name}: {about[name]}")
    print(f"licence: {licence}")
    print(f"wrote {config.to}")


if __name__ == "__main__":
    commands, prog = {"convert": (Config, main)}, cli.program(Config)
    sys.exit(cli.run_command(commands, description=__doc__ or "", prog=prog))
