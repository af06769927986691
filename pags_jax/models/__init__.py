"""Models in flax linen: ``create`` a classifier by name, ``init`` it, make it a function of images with ``evaluator``.

Modules: ``registry`` (these functions), ``lenet``, ``resnet``, ``vgg``, and ``layers``, what they are made of. A
classifier is called as ``model(x, train=...)`` on images ``(n, height, width, channels)`` and returns logits. Then
``unet``, the network of denoisers (see ``pags_jax.scores``), and ``autoencoder``, with ``patches`` below both.
"""

from pags_jax.models.autoencoder import Autoencoder as Autoencoder
from pags_jax.models.autoencoder import decoder as decoder
from pags_jax.models.autoencoder import encoder as encoder
from pags_jax.models.lenet import LeNet as LeNet
from pags_jax.models.registry import NAMES as NAMES
from pags_jax.models.registry import count_parameters as count_parameters
from pags_jax.models.registry import create as create
from pags_jax.models.registry import evaluator as evaluator
from pags_jax.models.registry import init as init
from pags_jax.models.registry import mode as mode
from pags_jax.models.resnet import ResNet as ResNet
from pags_jax.models.unet import UNet as UNet
from pags_jax.models.vgg import VGG as VGG
