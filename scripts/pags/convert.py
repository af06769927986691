"""Converts published weights to this project's safetensors, with their licence.

    python -m scripts.pags.convert --source cifar10_l2_wrn28-10_cutmix_ddpm_v2.pt --to rebuffi.safetensors
    python -m scripts.pags.convert --source network.pt --to network.safetensors --licence "MIT, (c) 2024 A. Author"

The result is for `pags_jax.models.load_pretrained`. Licences go where the weights go: that of a file in
`pags_jax.models.catalogue` is known, for others it is asked for. EDM's forbids commercial use.
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
    """The publisher's file, or a name in pags_jax.models.catalogue."""
    to: Path
    """The file to write, ending in .safetensors; a file that is there is never replaced."""
    folder: Path | None = None
    """Folder of the file, where --source is a name of the catalogue."""
    entry: str = ""
    """Which of the file's models to convert where it holds several, such as ema."""
    licence: str = ""
    """Licence of the weights; a file that is in no catalogue needs it."""


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
    sys.exit(cli.run_command({"convert": (Config, main)}, description=__doc__ or ""))
