"""Classifiers in flax linen: ``create`` one by name, ``init`` it, make it a function of images with ``evaluator``.

Modules: ``registry`` (these functions), ``lenet``, ``resnet``, ``vgg``, and ``layers``, what they are made of. A model
is called as ``model(x, train=...)`` on images ``(n, height, width, channels)`` and returns logits.
"""

from pags_jax.models.lenet import LeNet as LeNet
from pags_jax.models.registry import NAMES as NAMES
from pags_jax.models.registry import count_parameters as count_parameters
from pags_jax.models.registry import create as create
from pags_jax.models.registry import evaluator as evaluator
from pags_jax.models.registry import init as init
from pags_jax.models.resnet import ResNet as ResNet
from pags_jax.models.vgg import VGG as VGG
