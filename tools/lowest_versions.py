"""Every dependency at the lowest version that ``pyproject.toml`` allows, one requirement a line.

    pip install . -c <(python tools/lowest_versions.py)

takes robaudit with the oldest versions it promises to work with. Extras are included, all or those
that are named: ``lowest_versions.py test parquet``.
"""

import re
import sys
import tomllib
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?(?P<versions>.*)")


def lowest(requirement: str) -> str | None:
    """The requirement at its lower bound; ``None`` for robaudit's own extras.

    >>> lowest("typer>=0.16,!=0.26.0"), lowest("mkdocstrings[python]>=0.27"), lowest("a==1.1")
    ('typer==0.16', 'mkdocstrings==0.27', 'a==1.1')
    >>> lowest("robaudit[parquet]")
    """
    found = _REQUIREMENT.fullmatch(requirement.replace(" ", ""))
    if found is None:
        raise SystemExit(f"not understood: {requirement}")
    if found["name"] == "robaudit":
        return None
    bounds = [part[2:] for part in found["versions"].split(",") if part[:2] in (">=", "==")]
    if len(bounds) != 1:
        raise SystemExit(f"{requirement}: one lower bound is needed")
    return f"{found['name']}=={bounds[0]}"


def main(extras: list[str]) -> None:
    file = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for name in extras or optional:
        wanted += optional[name]
    for line in sorted({found for entry in wanted if (found := lowest(entry))}):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
