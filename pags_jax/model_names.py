"""The classifiers by name, without JAX, so that a command line can list them; ``models.create`` makes them."""

from typing import Literal, get_args

Name = Literal["lenet", "resnet14", "resnet18", "resnet34", "resnet50", "vgg11"]
"""Type of a flag that names a classifier."""
#: Every model that ``models.create`` knows.
NAMES: tuple[str, ...] = get_args(Name)
