"""How each family is told by a few of its keys and shapes; torch-free, so that a file can be judged
without importing it.

A signature reads the factory's arguments off a state dict's shapes: a list with one set of them for
each network of the family that the shapes allow, empty when the keys are not its family's. It looks
at tell-tale keys alone; :meth:`Candidate.fits` checks a guess against every key and shape.
"""

from robaudit.checkpoints.architectures.signatures.digits import digits_resnet, digits_vit
from robaudit.checkpoints.architectures.signatures.plain import (
    cifar_mobilenet_v2,
    mobilenet_v2,
    small_cnn,
    vgg,
)
from robaudit.checkpoints.architectures.signatures.residual import (
    cifar_resnet,
    dm_preact_resnet,
    dm_wide_resnet,
    preact_resnet,
    resnet,
    wide_resnet,
    wide_resnet_layers,
)
from robaudit.checkpoints.architectures.signatures.sequential import (
    plain_cnn,
    sequential_cnn,
    unactivated,
)
from robaudit.checkpoints.architectures.signatures.transformer import hf_vit, vit

__all__ = [
    "cifar_mobilenet_v2",
    "cifar_resnet",
    "digits_resnet",
    "digits_vit",
    "dm_preact_resnet",
    "dm_wide_resnet",
    "hf_vit",
    "mobilenet_v2",
    "plain_cnn",
    "preact_resnet",
    "resnet",
    "sequential_cnn",
    "small_cnn",
    "unactivated",
    "vgg",
    "vit",
    "wide_resnet",
    "wide_resnet_layers",
]
