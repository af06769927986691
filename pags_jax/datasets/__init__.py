"""Image sets: ``load`` a named one, or stream folders of images that are too many for memory with ``image_batches``.

Modules: ``registry`` (load); ``fashion_mnist`` and ``mnist``, read by ``idx_folders`` from files as in ``idx``;
``cifar``; ``imagenet64``; ``distractor``, with its letters in ``glyphs``; ``image_folders`` (streaming). They stand on
``labelled_images`` (the result) and ``reading`` (files, downloads and their errors). Everything here is NumPy in
memory, uint8: the caller puts it on a device, and ``pags_jax.images.to_float`` takes it to [0, 1] there.
"""

from pags_jax.datasets.distractor import with_distractor as with_distractor
from pags_jax.datasets.image_folders import FoundImages as FoundImages
from pags_jax.datasets.image_folders import find_images as find_images
from pags_jax.datasets.image_folders import image_batches as image_batches
from pags_jax.datasets.labelled_images import Images as Images
from pags_jax.datasets.registry import NAMES as NAMES
from pags_jax.datasets.registry import Name as Name
from pags_jax.datasets.registry import load as load
from pags_jax.datasets.registry import share_images as share_images
