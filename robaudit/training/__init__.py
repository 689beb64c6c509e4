"""Training methods of the papers, as far as the sample checkpoints need them; one objective a file.

An objective is a plain function of a model and a batch that returns the loss to descend;
:func:`train` is the one loop that descends it. Everything is seeded.
"""

from robaudit.training.at import at_loss
from robaudit.training.inner import maximise
from robaudit.training.loop import Objective, cosine, train
from robaudit.training.standard import standard_loss
from robaudit.training.trades import kl_divergence, trades_loss

__all__ = [
    "Objective",
    "at_loss",
    "cosine",
    "kl_divergence",
    "maximise",
    "standard_loss",
    "trades_loss",
    "train",
]
