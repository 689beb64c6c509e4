"""``name -> Examples``: bundled digits, torchvision's sets, folders, files, registered sets.

Each source is one small module that says how many examples there are and gives any of them;
:func:`load_examples` chooses which, checks them and hashes them.
"""

from robaudit.data.load import default_threat, load_examples

__all__ = ["default_threat", "load_examples"]
