"""Writes docs/reference/zoo.md from the installed RobustBench.

PYTHONPATH=tests:. python tests/sources/make_zoo_table.py
"""

from support.zoo import LARGE, table, table_file

from robaudit.checkpoints.sources.catalogue import catalogue

INTRODUCTION = """# RobustBench's zoo

`robustbench:DATASET/THREAT/NAME` opens any of the {count} entries of RobustBench {version}'s model
zoo. This table is generated from the installed package, and the slow tests hold every row to
account:

- **logits**: the entry, with fewer than {large} million parameters, is built, its weights are saved
  in one of the forms that the zoo's files have, opened by name, and the logits of two images are
  those of the network they came from, bit for bit;
- **keys and shapes**: the entry is larger. It is made without memory, and its file's keys and
  shapes are led to its own; a key that lacks or has another shape is refused.

All of them can be built with the packages that `pip install 'robaudit[robustbench]'` installs, on a
machine with or without a GPU. The weights themselves were not part of the tests: they are
RobustBench's to publish. [How to use them](../how-to/zoos.md) says where the files go.

"""


def main() -> None:
    from importlib.metadata import version

    introduction = INTRODUCTION.format(
        count=len(catalogue()), version=version("robustbench"), large=LARGE // 1_000_000
    )
    table_file().write_text(introduction + table(), encoding="utf-8")


if __name__ == "__main__":
    main()
