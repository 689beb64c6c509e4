"""``name -> Examples``: bundled digits, torchvision's sets, folders, files, registered sets.

Each source is one small module that says how many examples there are and gives any of them;
:func:`load_examples` chooses which, checks them and hashes them; :func:`load_splits` does so for
what an audit needs of the test and of the training split.
"""

from robaudit.data.load import deciding_examples, default_threat, load_examples
from robaudit.data.splits import load_splits

__all__ = ["deciding_examples", "default_threat", "load_examples", "load_splits"]
