"""The errors of ``load``, and that it can be asked for every name."""

import numpy as np
import pytest

from pags_jax import datasets
from tests.pags.datasets.test_idx import draw_arrays, write_set


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar", {}, "unknown data set 'cifar'; available: 'fashion_mnist', 'fashion_mnist_full', 'mnist', "),
        ("mnist", {"seed": 0}, "unknown option 'seed' of 'mnist'; available: none"),
        ("cifar100", {"of": 0}, "unknown option 'of' of 'cifar100'; available: 'labels'"),
        ("fashion_mnist", {"folder": "x"}, "'fashion_mnist' is bundled and takes no folder .*'fashion_mnist_full'"),
        ("distractor", {}, "'distractor' needs `seed`, a whole number >= 0, got None"),
        ("distractor", {"seed": -1}, "got -1"),
        ("distractor", {"seed": 0, "of": "distractor"}, "`of` must be another data set than 'distractor'"),
        ("distractor", {"seed": 0, "of": "svhn"}, "unknown data set 'svhn'"),
        ("distractor", {"seed": 0, "letters": "1"}, "`letters` must be capital letters"),
    ],
)
def test_errors(name, options, said):
    with pytest.raises(ValueError, match=said):
        datasets.load(name, **options)


@pytest.mark.parametrize("name", [name for name in datasets.NAMES if name not in ("fashion_mnist", "distractor")])
def test_every_name_says_which_file_an_empty_folder_lacks(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"no file {tmp_path}.*; get the "):
        datasets.load(name, folder=tmp_path)


def test_distractor_of_a_set_in_a_folder(tmp_path):
    arrays = draw_arrays()
    write_set(tmp_path, arrays)
    images = datasets.load("distractor", of="mnist", folder=tmp_path, seed=0)
    np.testing.assert_array_equal(images.test_x[images.test_mask].reshape(10, 28, 28), arrays["t10k-images-idx3-ubyte"])
