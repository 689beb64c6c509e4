"""Training methods of the papers; one regulariser per file.

An objective computes adversarial examples and the loss on them; a :class:`Method` adds
regularisers; :func:`train` is a plain loop, and :func:`fit` follows a recipe and can be resumed.
Nothing here writes files.
"""

from robaudit.training.awp import Awp
from robaudit.training.entropy_sgd import EntropySGD
from robaudit.training.inner import maximise
from robaudit.training.loop import DivergedError, train
from robaudit.training.method import Method
from robaudit.training.mixup import Mixup
from robaudit.training.moving import moved_weights
from robaudit.training.objectives import (
    Alp,
    At,
    Mart,
    Objective,
    Standard,
    Trades,
    kl_divergence,
)
from robaudit.training.rotations import Rotations
from robaudit.training.schedules import constant, cosine, cyclic, piecewise, piecewise_zoom
from robaudit.training.swa import Swa, averaged_state
from robaudit.training.taylor import Taylor
from robaudit.training.trh import TrH
from robaudit.training.wci_control import WCIController, fixed_batch_wci
from robaudit.training.weight_clip import WeightClip

__all__ = [
    "Alp",
    "At",
    "Awp",
    "DivergedError",
    "EntropySGD",
    "Mart",
    "Method",
    "Mixup",
    "Objective",
    "Rotations",
    "Standard",
    "Swa",
    "Taylor",
    "TrH",
    "Trades",
    "WCIController",
    "WeightClip",
    "averaged_state",
    "constant",
    "cosine",
    "cyclic",
    "fixed_batch_wci",
    "kl_divergence",
    "maximise",
    "moved_weights",
    "piecewise",
    "piecewise_zoom",
    "train",
]
