"""Margins that the KLoM benchmark stores, one file a model or one for all, for ``audit.klom``.

The layout of RoyRin/data-unlearning-bench and its data set: a folder for each kind of model (trained on all rows, or
retrained without a forget set) with ``{model}__{split}_margins_{epoch}.npy``, each ``(rows,)``; and files of all models
at once, ``{split}_margins_all``, ``(models, rows)``, which it keeps as PyTorch's pickles.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

_ONE = re.compile(r"(?P<model>\d+)__(?P<split>[a-z]+)_margins_(?P<epoch>\d+)\.npy")


def load_margins(folder: str | Path, *, split: str, epoch: int | None = None) -> Float[np.ndarray, "models rows"]:
    """Reads the stored margins of all models in a folder; nothing is unpickled.

    Args:
      folder: Folder with the files; or one ``.npy`` file of shape (models, rows).
      split: "train" or "val", as the files have it in their names; for one file it is not read.
      epoch: After which each model's margins are taken; None is the last one that every model has.

    Returns:
      ``(models, rows)`` in ascending order of models, in the files' own precision.

    Raises:
      ValueError: No such margins; models of different numbers of rows; objects instead of numbers; a pickle.
      FileNotFoundError: No such path.
    """
    folder = Path(folder)
    if folder.is_file():
        return _read(folder, 2)
    found: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        named = _ONE.fullmatch(path.name)
        if named and named["split"] == split:
            found.setdefault(int(named["model"]), {})[int(named["epoch"])] = path
    if not found:
        whole = sorted(path.name for path in folder.glob(f"{split}_margins_all*"))
        hint = f"; it holds {whole}: pass an .npy file of it" if whole else ""
        raise ValueError(f"{folder} holds no `*__{split}_margins_*.npy`{hint}")
    shared = set.intersection(*(set(epochs) for epochs in found.values()))
    if not shared or (epoch is not None and epoch not in shared):
        raise ValueError(f"epochs that all {len(found)} models have in {folder}: {sorted(shared)}; asked for {epoch}")
    chosen = max(shared) if epoch is None else epoch
    margins = [_read(found[model][chosen], 1) for model in sorted(found)]
    if len({len(part) for part in margins}) > 1:
        raise ValueError(f"models in {folder} have different numbers of rows: {sorted({len(m) for m in margins})}")
    return np.stack(margins)


def _read(path: Path, ndim: int) -> np.ndarray:
    if path.suffix != ".npy":
        raise ValueError(
            f"{path.name} is no .npy file: PyTorch's pickles are not read here, since unpickling runs what a file "
            "says; load it with torch.load(path, weights_only=True) and save it by numpy.save"
        )
    margins = np.load(path, allow_pickle=False)
    if margins.ndim != ndim or not np.issubdtype(margins.dtype, np.floating):
        raise ValueError(f"{path.name} must hold floats with {ndim} axes, got {margins.dtype} {margins.shape}")
    return margins
