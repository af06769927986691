"""The raw files of the bundled tables: where they come from, and the bundled files made of them."""

import hashlib
from pathlib import Path

import pooch

from fmu_jax.datasets import adult, bundled, compas

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
PROPUBLICA = "https://raw.githubusercontent.com/propublica/compas-analysis/master/"
RAW = {
    "adult.data": (UCI, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "adult.test": (UCI, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
    compas.RAW_FILE: (PROPUBLICA, "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d"),
}
"""Each raw table's official address and SHA-256."""


def raw_file(name: str, folder: Path | None) -> Path:
    """Finds a raw table in a folder, or downloads it to pooch's cache, and checks it.

    Raises:
      ValueError: It is not there, cannot be downloaded, or has another SHA-256.
    """
    address, expected = RAW[name]
    if folder is None:
        try:
            return Path(pooch.retrieve(address + name, known_hash=f"sha256:{expected}", fname=f"fmu-jax-{name}"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot download {address + name}: {error}; download it by hand and pass --raw"
            ) from error
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; get it from {address + name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}; get it from {address + name}")
    return path


def build(name: str, folder: Path | None) -> dict[str, bytes]:
    """The bundled file of "compas" or "adult" by its name, made from the raw files of a folder or their downloads.

    Raises:
      ValueError: As ``raw_file``.
    """
    if name == "compas":
        table = compas.clean(compas.read_raw(raw_file(compas.RAW_FILE, folder)))
    else:
        table = adult.clean(*(adult.read_raw(raw_file(part, folder)) for part in adult.RAW_FILES))
    return {f"{name}.csv.gz": bundled.pack(table)}
