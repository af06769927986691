"""The names that flags choose from, readable without importing JAX.

The packages' registries hold what each name stands for; `tests/test_registry.py` compares the two.
"""

from typing import Literal

from fmu_jax.penalty_forms import PenaltyName

# fmu_jax: penalties.PENALTIES, datasets.GROUPS, and which rows of a table are meant.
Penalty = PenaltyName
Attribute = Literal["race", "gender"]
DataSet = Literal["compas", "adult", "hsls"]
Subset = Literal["random", "minority", "majority"]

# pags_jax: losses.LOSSES and recipes.RECIPES, datasets.NAMES, models.NAMES, and what modules call their options.
Loss = Literal["cross_entropy", "gradient_norm", "smoothness", "randomized_smoothing", "adversarial"]
Images = Literal[
    "fashion_mnist", "fashion_mnist_full", "mnist", "mnist_test", "cifar10", "cifar100", "imagenet64", "distractor"
]
BesideDistractor = Literal["fashion_mnist", "fashion_mnist_full", "mnist", "mnist_test"]
Unlabelled = Literal["fashion_mnist", "fashion_mnist_full", "mnist", "cifar10", "cifar100", "imagenet64"]
Model = Literal["lenet", "resnet14", "resnet18", "resnet34", "resnet50", "vgg11"]
Activation = Literal["relu", "softplus"]
Norm = Literal["l2", "linf"]
Attack = Literal["pgd", "ensemble"]
Target = Literal["logit_sum", "logit", "log_prob", "log_sum_exp"]
StrengthUnit = Literal["own", "reference"]
Augment = Literal["auto", "none", "crop", "crop-flip"]
Driver = Literal["auto", "steps", "scan"]
