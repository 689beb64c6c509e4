"""Attacks: images, labels and a threat model to adversarial examples; one attack per file.

Every attack is a function of a model (or a :class:`robaudit.engine.Runner` of one), images, labels
and a threat model, and returns an :class:`AttackResult`. Accuracies under an attack are upper
bounds on robust accuracy: an example that no attack broke may still be breakable.

Beside them are measures of the loss within the ball: :func:`input_gradient_norm`,
:func:`gradient_alignment` and :func:`local_linearity`.
"""

from robaudit.attacks.apgd import apgd
from robaudit.attacks.autoattack import autoattack
from robaudit.attacks.diagnostics import Diagnostics
from robaudit.attacks.ensemble import native_autoattack
from robaudit.attacks.fab import fab
from robaudit.attacks.fast import fast
from robaudit.attacks.input_gradient import gradient_alignment, input_gradient_norm
from robaudit.attacks.local_linearity import LocalLinearity, local_linearity
from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import AttackResult
from robaudit.attacks.square import square
from robaudit.attacks.verification import Verified, verify

__all__ = [
    "AttackResult",
    "Diagnostics",
    "LocalLinearity",
    "Verified",
    "apgd",
    "autoattack",
    "fab",
    "fast",
    "gradient_alignment",
    "input_gradient_norm",
    "local_linearity",
    "native_autoattack",
    "pgd",
    "square",
    "verify",
]
