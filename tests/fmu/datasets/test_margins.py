"""Stored margins of the KLoM benchmark, written here in its layout."""

import numpy as np
import pytest

from fmu_jax import audit, datasets


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for model in (0, 2, 10):
        for epoch in (5, 23):
            for split, rows in (("train", 4), ("val", 3)):
                np.save(tmp_path / f"{model}__{split}_margins_{epoch}.npy", rng.normal(size=rows) + model)
    np.save(tmp_path / "10__val_margins_99.npy", np.zeros(3))
    (tmp_path / "sd_0____epoch_23.pt").write_bytes(b"")
    return tmp_path


def test_margins_of_the_last_shared_epoch_in_order_of_models(folder):
    margins = datasets.load_margins(folder, split="val")
    expected = [np.load(folder / f"{model}__val_margins_23.npy") for model in (0, 2, 10)]
    np.testing.assert_array_equal(margins, expected)
    early = datasets.load_margins(folder, split="train", epoch=5)
    np.testing.assert_array_equal(early[2], np.load(folder / "10__train_margins_5.npy"))
    assert audit.klom(margins, margins[::-1]).shape == (3,)


def test_one_file_of_all_models(tmp_path):
    whole = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "all.npy", whole)
    np.testing.assert_array_equal(datasets.load_margins(tmp_path / "all.npy", split="val"), whole)


def test_what_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"holds no `\*__test_margins_\*.npy`"):
        datasets.load_margins(folder, split="test")
    with pytest.raises(ValueError, match=r"all 3 models have in .*: \[5, 23\]; asked for 99"):
        datasets.load_margins(folder, split="val", epoch=99)
    (folder / "val_margins_all.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="weights_only=True"):
        datasets.load_margins(folder / "val_margins_all.pt", split="val")
    np.save(folder / "0__val_margins_23.npy", np.zeros(7))
    with pytest.raises(ValueError, match=r"different numbers of rows: \[3, 7\]"):
        datasets.load_margins(folder, split="val")
    np.save(folder / "0__val_margins_23.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        datasets.load_margins(folder, split="val")
    with pytest.raises(FileNotFoundError):
        datasets.load_margins(tmp_path / "nowhere", split="val")
