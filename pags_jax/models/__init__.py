"""Models in flax linen: ``create`` makes a classifier, ``init`` its variables, ``evaluator`` a function of images.

Modules: ``registry`` (these functions), ``lenet``, ``resnet``, ``vgg``, and ``layers``, what they are made of. A
classifier is called as ``model(x, train=...)`` on images ``(n, height, width, channels)`` and returns logits. Then
``unet``, the network of denoisers (see ``pags_jax.scores``), and ``autoencoder``, with ``patches`` below both.

Files: ``save`` and ``load`` (``files``; ``architectures`` is what they say of a network), and ``export`` and
``load_exported`` (``exporting``), which need neither this package nor flax where they are used.

Published weights: ``load_pretrained`` reads them, and our own files (``loading``), into ``preactivation`` (wide
residual networks), ``resnet`` or ``edm`` (U-Nets, of ``edm_layers``): ``recognise`` finds which, ``published`` knows
the tensors' names. Publishers' files are read by ``states``, ``torch_files``, ``zips``, ``pickles``, ``opcodes`` and
``records``, without running anything in them.
"""

from pags_jax.models.autoencoder import Autoencoder as Autoencoder
from pags_jax.models.autoencoder import decoder as decoder
from pags_jax.models.autoencoder import encoder as encoder
from pags_jax.models.edm import DhariwalUNet as DhariwalUNet
from pags_jax.models.edm import SongUNet as SongUNet
from pags_jax.models.exporting import export as export
from pags_jax.models.exporting import load_exported as load_exported
from pags_jax.models.files import Pretrained as Pretrained
from pags_jax.models.files import load as load
from pags_jax.models.files import save as save
from pags_jax.models.lenet import LeNet as LeNet
from pags_jax.models.loading import load_pretrained as load_pretrained
from pags_jax.models.loading import read_pretrained as read_pretrained
from pags_jax.models.preactivation import Normalised as Normalised
from pags_jax.models.preactivation import PreActivationResNet as PreActivationResNet
from pags_jax.models.preactivation import wide_resnet as wide_resnet
from pags_jax.models.registry import NAMES as NAMES
from pags_jax.models.registry import Name as Name
from pags_jax.models.registry import count_parameters as count_parameters
from pags_jax.models.registry import create as create
from pags_jax.models.registry import evaluator as evaluator
from pags_jax.models.registry import features as features
from pags_jax.models.registry import init as init
from pags_jax.models.registry import mode as mode
from pags_jax.models.resnet import ResNet as ResNet
from pags_jax.models.unet import UNet as UNet
from pags_jax.models.vgg import VGG as VGG
