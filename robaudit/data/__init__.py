"""Data sets: bundled digits, torchvision's sets, folders, files and registered sets.

Each kind of source is one module that provides the number of examples and access to them;
:func:`load_examples` selects, checks and hashes examples; :func:`load_splits` loads those of the
test and of the training split that an audit needs.
"""

from robaudit.data.corruptions import open_corrupted
from robaudit.data.load import deciding_examples, default_threat, load_examples
from robaudit.data.splits import load_splits

__all__ = ["deciding_examples", "default_threat", "load_examples", "load_splits", "open_corrupted"]
