"""``(classifier, examples, threat) -> adversarial examples``; one attack a file.

Accuracies under an attack are upper bounds on robust accuracy: an example that no attack broke may
still be breakable.
"""

from robaudit.attacks.autoattack import AutoAttacked, autoattack
from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import Attacked

__all__ = ["Attacked", "AutoAttacked", "autoattack", "pgd"]
