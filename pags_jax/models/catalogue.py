"""Published weights by name: which file they lie in, where it is got, and what it must hold.

No publisher's page that we know says the SHA-256 of these files, so none is written here, and nothing is downloaded
unasked: a user gets a file once, and ``find`` looks for it where it is told to or in the user's cache folder. Whoever
has the SHA-256 of a file from somewhere they trust (the Hugging Face hub shows it of each of its files) passes it, and
the file is downloaded where its publisher offers it by plain HTTPS. What it holds must be what its name promises.
"""

import difflib
import os
from pathlib import Path
from typing import Any, NamedTuple

import pooch

from pags_jax.datasets import reading

_EDM = "NVIDIA's page of pre-trained models that github.com/NVlabs/edm names"
_DEEPMIND = "the table in github.com/google-deepmind/deepmind-research, folder adversarial_robustness"
_ROBUSTBENCH = "RobustBench, whose load_model downloads it to models/{} (github.com/RobustBench/robustbench)"
_MADRY = "the table in github.com/MadryLab/robustness"
_SALMAN = "the repository madrylab/robust-imagenet-models on the Hugging Face hub"

#: Where files lie whose address is no more than that and their name.
ADDRESSES = {
    _EDM: "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/",
    _DEEPMIND: "https://storage.googleapis.com/dm-adversarial-robustness/",
    _SALMAN: "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/",
}

_NONCOMMERCIAL = (
    "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0), Copyright (c) 2022, "
    "NVIDIA CORPORATION & AFFILIATES: name the source, no commercial use, share changes under the same licence; "
    "https://creativecommons.org/licenses/by-nc-sa/4.0/"
)
_DEEPMIND_LICENCE = "Apache License 2.0, Copyright 2020 DeepMind Technologies Limited, as its repository says"
_MIT = "MIT License, as the publisher's repository says: {}"
_MADRY_LICENCE = _MIT.format("github.com/MadryLab/robustness")
_ENGSTROM = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), False)


class Published(NamedTuple):
    """One file of published weights.

    Attributes:
      file: its name.
      where: how it is got.
      licence: the licence of the weights, which goes where they go.
      source: the paper.
      trained: the data, and the attacks that it was trained against.
      expected: entries of ``about`` that loading it must give.
      normaliser: of ``load_pretrained``, where the file does not say.
    """

    file: str
    where: str
    licence: str
    source: str
    trained: str
    expected: dict[str, Any]
    normaliser: tuple[tuple[float, ...], tuple[float, ...], bool] | None = None


_WRN = {"28-10": 36_479_194, "70-16": 266_796_506}
_RESNETS = {"18": 11_689_512, "50": 25_557_032}
_EPS = {"l2": ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5"), "linf": ("0.5", "1", "2", "4", "8")}
_NORMS = {"l2": "L2", "linf": "Linf"}


def _classifier(parameters: int, classes: int = 10) -> dict[str, Any]:
    return {"kind": "classifier", "parameters": parameters, "classes": classes}


def _denoiser(parameters: int, classes: int = 0) -> dict[str, Any]:
    return {"kind": "denoiser", "parameters": parameters, "classes": classes}


_EDM_PAPER = "Karras, Aittala, Aila and Laine (NeurIPS 2022)"
_SALMAN_PAPER = "Salman, Ilyas, Engstrom, Kapoor and Madry (NeurIPS 2020)"

#: Everything that ``load_pretrained`` knows by name.
PUBLISHED: dict[str, Published] = {
    "edm-cifar10": Published(
        "edm-cifar10-32x32-uncond-vp.pkl", _EDM, _NONCOMMERCIAL, _EDM_PAPER, "CIFAR-10", _denoiser(55_733_891)
    ),
    "edm-cifar10-cond": Published(
        "edm-cifar10-32x32-cond-vp.pkl", _EDM, _NONCOMMERCIAL, _EDM_PAPER, "CIFAR-10", _denoiser(55_735_299, 10)
    ),
    "edm-imagenet64": Published(
        "edm-imagenet-64x64-cond-adm.pkl", _EDM, _NONCOMMERCIAL, _EDM_PAPER, "ImageNet", _denoiser(295_899_267, 1000)
    ),
    **{
        f"rebuffi-wrn-{size}-{norm}": Published(
            f"cifar10_{norm}_wrn{size}_cutmix_ddpm_v2.pt", _DEEPMIND, _DEEPMIND_LICENCE,
            "Rebuffi, Gowal, Calian, Stimberg, Wiles and Mann (2021)", f"CIFAR-10, {_NORMS[norm]}", _classifier(count),
        )
        for size, count in _WRN.items()
        for norm in _NORMS
    },
    **{
        f"wang-wrn-{size}-{norm}": Published(
            f"Wang2023Better_WRN-{size}.pt", _ROBUSTBENCH.format(f"cifar10/{_NORMS[norm]}"),
            _MIT.format("github.com/wzekai99/DM-Improves-AT"), "Wang, Pang, Du, Lin, Liu and Yan (ICML 2023)",
            f"CIFAR-10, {_NORMS[norm]}", _classifier(count),
        )
        for size, count in _WRN.items()
        for norm in _NORMS
    },
    **{
        f"engstrom-resnet50-{norm}": Published(
            "Engstrom2019Robustness.pt", _ROBUSTBENCH.format(f"cifar10/{_NORMS[norm]}"), _MADRY_LICENCE,
            "Engstrom, Ilyas, Salman, Santurkar and Tsipras (2019)", f"CIFAR-10, {_NORMS[norm]}",
            _classifier(23_520_842), _ENGSTROM,
        )
        for norm in _NORMS
    },
    **{
        f"madry-cifar10-l2-{eps}": Published(
            f"cifar_l2_{file}.pt", _MADRY, _MADRY_LICENCE,
            "Engstrom, Ilyas, Salman, Santurkar and Tsipras (2019)", f"CIFAR-10, L2 of {eps}", _classifier(23_520_842),
        )
        for eps, file in {"0.25": "0_25", "0.5": "0_5", "1": "1_0"}.items()
    },
    **{
        f"imagenet-resnet{size}-{norm}-{eps}": Published(
            f"resnet{size}_{norm}_eps{eps if norm == 'l2' else float(eps)}.ckpt", _SALMAN,
            _MIT.format("github.com/microsoft/robust-models-transfer"), _SALMAN_PAPER,
            f"ImageNet, {_NORMS[norm]} of {eps}{'' if norm == 'l2' else '/255'}", _classifier(count, 1000),
        )
        for size, count in _RESNETS.items()
        for norm, values in _EPS.items()
        for eps in values
    },
}  # fmt: skip


def find(name: str, folder: str | Path | None = None, *, sha256: str | None = None) -> Path:
    """The file of published weights.

    Args:
      name: one of ``PUBLISHED``.
      folder: where it lies; by default the folder ``weights`` in the package's cache folder.
      sha256: of the file, in hex: where it is not there, it is downloaded to that place, and kept if this is its own.

    Raises:
      FileNotFoundError: the file is not there; the message says where to get it.
      ValueError: no such name, or a download that failed or has another SHA-256.
    """
    if name not in PUBLISHED:
        raise ValueError(f"no file {name}, and no published weights of this name; known: {', '.join(PUBLISHED)}")
    found = PUBLISHED[name]
    folder = Path(folder) if folder is not None else Path(pooch.os_cache(reading.CACHE)) / "weights"
    path, address = folder / found.file, ADDRESSES.get(found.where)
    if path.is_file():
        return path
    if sha256 is not None and address:
        return reading.download(address + found.file, sha256=sha256, to=str(folder.resolve()))
    offered = "; with its SHA-256 as sha256= it is downloaded" if address else ""
    raise FileNotFoundError(
        f"no file {path}: get {found.file} from {found.where}, and put it there or pass its folder or path{offered}"
    )


def normaliser_of(file: str, parameters: int) -> Any:
    """The normaliser of a published file of this name and size, or None where the file itself says it."""
    found = [p for p in PUBLISHED.values() if p.file == file and p.expected["parameters"] == parameters]
    return found[0].normaliser if found else None


def missing(path: Path) -> str:
    """What to say of a path where no file is, which may be meant as a name."""
    if os.path.isdir(path):  # noqa: PTH112 - a path that is too long is none, and no other error
        return f"no file {path}: it is a folder; pass the path of a file in it"
    if path.name != str(path) or path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".safetensors"):
        return f"no file {path}: check the path"
    found = difflib.get_close_matches(str(path).lower(), PUBLISHED, n=4, cutoff=0.4)
    near = f"near it: {', '.join(found)}; " if found else ""
    return f"no file {path}, and no published weights of this name; {near}models.catalogue.PUBLISHED has all names"


def known(name: str | None, path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What the catalogue says of a file: name, licence, paper and what it was trained on.

    Args:
      name: of the published weights; None: whatever has the file's name and contents.
      path: of the file.
      about: what loading it gave.

    Returns:
      These, or nothing of a file that is in no catalogue.

    Raises:
      ValueError: the file does not hold what the name promises.
    """
    found = []
    for candidate in PUBLISHED if name is None else (name,):
        published = PUBLISHED[candidate]
        wrong = {key: value for key, value in published.expected.items() if about[key] != value}
        if name is not None and wrong:
            actual = {key: about[key] for key in wrong}
            raise ValueError(f"{path} is not {name}: it has {actual}, expected {wrong}")
        if not wrong and published.file == path.name:
            found.append(candidate)
    if not found:
        return {}
    published = PUBLISHED[found[0]]
    terms = {"licence": published.licence, "paper": published.source}
    # RobustBench gives files of several threat models one name.
    return terms if len(found) > 1 else {"name": found[0], "trained": published.trained, **terms}
