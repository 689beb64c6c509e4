"""Training methods of the papers; one regulariser or schedule a file.

An objective makes adversarial examples and gives the loss at them; a :class:`Method` puts
regularisers to it; :func:`train` is a plain loop, and :func:`fit` one that follows a recipe and can
be taken up where it stopped. Nothing here writes a file.
"""

from robaudit.training.awp import Awp
from robaudit.training.inner import maximise
from robaudit.training.loop import DivergedError, train
from robaudit.training.method import Method
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
from robaudit.training.schedules import constant, cosine, cyclic, piecewise
from robaudit.training.swa import Swa, averaged_state
from robaudit.training.taylor import Taylor
from robaudit.training.trh import TrH
from robaudit.training.wci_control import WCIController, fixed_batch_wci

__all__ = [
    "Alp",
    "At",
    "Awp",
    "DivergedError",
    "Mart",
    "Method",
    "Objective",
    "Standard",
    "Swa",
    "Taylor",
    "TrH",
    "Trades",
    "WCIController",
    "averaged_state",
    "constant",
    "cosine",
    "cyclic",
    "fixed_batch_wci",
    "kl_divergence",
    "maximise",
    "moved_weights",
    "piecewise",
    "train",
]
