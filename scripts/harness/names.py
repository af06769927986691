"""The names that flags choose from, readable without importing JAX.

Penalties, losses, sets of images and models come from the packages' registries. Those below that are written out
stand beside registries that import JAX; `tests/test_registry.py` compares the two.
"""

from typing import Literal

from fmu_jax.penalty_forms import PenaltyName
from pags_jax import datasets, model_names
from pags_jax.strengths import Loss as Loss

# fmu_jax: penalties, datasets.GROUPS, and which rows of a table are meant.
Penalty = PenaltyName
Attribute = Literal["race", "gender"]
DataSet = Literal["compas", "adult", "hsls"]
Subset = Literal["random", "minority", "majority"]

# pags_jax: models, sets of images, and what modules call their options.
Model = model_names.Name
Images = datasets.Name
BesideDistractor = Literal["fashion_mnist", "fashion_mnist_full", "mnist", "mnist_test"]
Unlabelled = Literal["fashion_mnist", "fashion_mnist_full", "mnist", "cifar10", "cifar100", "imagenet64"]
Activation = Literal["relu", "softplus"]
Norm = Literal["l2", "linf"]
Attack = Literal["pgd", "ensemble"]
Target = Literal["logit_sum", "logit", "log_prob", "log_sum_exp"]
StrengthUnit = Literal["own", "reference"]
Augment = Literal["auto", "none", "crop", "crop-flip"]
Driver = Literal["auto", "steps", "scan"]
