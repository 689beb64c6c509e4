"""torchvision's and timm's models by the keys and shapes of their state dicts; torch-free.

``library_table.tsv`` holds a hash for every model. It leaves out what differs between uses of one
model: the class count, the input channels, and what grows with the image (position embeddings).
Models that share these places share a group: a line ``@ head <tab> stem <tab> sized`` with the keys
and dimensions of the first two and the last parts of the third's keys, then one line per hash with
the names, the most usual first. ``tools/make_library_table.py`` writes the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from math import isqrt

from robaudit.checkpoints.architectures.architecture import Architecture, Arguments, Lazy, Shapes

TABLE = "library_table.tsv"
LIBRARIES = ("torchvision", "timm")
_USUAL = {"classes": 1000, "channels": 3, "image_size": 224}
_FACTORY = f"{__package__}.library_models"
_PATCHES = frozenset({"patch_embed.proj.weight", "conv_proj.weight"})
_POSITIONS = frozenset({"pos_embed", "pos_embedding"})
_MAX_IMAGE = 4096
_MAX_EXTRA = 5  # class token, distillation token, registers


@dataclass(frozen=True)
class Places:
    """The places in a model's shapes that depend on its use.

    Attributes:
        head, stem: key and dimension of the class count and of the input channels.
        sized: last parts of the keys whose shapes depend on the size of the image.
    """

    head: tuple[tuple[str, int], ...]
    stem: tuple[tuple[str, int], ...]
    sized: frozenset[str]

    def signature(self, shapes: Shapes) -> str | None:
        """A hash of everything else; ``None`` if one of these places is missing."""
        masked = {(key, dim) for key, dim in (*self.head, *self.stem)}
        if any(dim >= len(shapes.get(key, ())) for key, dim in masked):
            return None
        lines = []
        for key, shape in shapes.items():
            if key.endswith("num_batches_tracked"):
                continue
            sizes = ["?" if (key, dim) in masked else str(s) for dim, s in enumerate(shape)]
            if key.rpartition(".")[2] in self.sized:
                sizes = ["?"]
            lines.append(f"{key} {'x'.join(sizes)}")
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def library_architectures(shapes: Shapes) -> Iterator[Architecture]:
    """The library models with these keys and shapes, the most usual first."""
    found = []
    for places, names in _table().items():
        signature = places.signature(shapes)
        found += [(name, places) for name in names.get(signature or "", ())]
    found.sort(key=lambda pair: LIBRARIES.index(pair[0].partition(":")[0]))
    for name, places in found:
        yield _architecture(name, places)


def library_architecture(name: str) -> Architecture | None:
    """The model ``torchvision:NAME`` or ``timm:NAME``, whether or not the table has it."""
    library, _, model = name.partition(":")
    return _architecture(name, None) if library in LIBRARIES and model else None


def _architecture(name: str, places: Places | None) -> Architecture:
    library, _, model = name.partition(":")
    build = partial(Lazy(_FACTORY, f"{library}_model"), name=model)
    return Architecture(name, partial(_guess, places), build, _USUAL, exclusive=True)


def _guess(places: Places | None, shapes: Shapes) -> list[Arguments]:
    if places is None:
        known = (place for place in _table() if place.signature(shapes) in _table()[place])
        places = next(known, None) or _likely(shapes)
    if places is None:
        return []
    classes = shapes[places.head[0][0]][places.head[0][1]] if places.head else 1000
    channels = shapes[places.stem[0][0]][places.stem[0][1]] if places.stem else 3
    arguments = {"classes": classes, "channels": channels}
    sizes = _sizes(places, shapes) if places.sized else []
    # Last the default size of the model, if none can be read.
    return [*({**arguments, "image_size": size} for size in sizes), arguments]


def _likely(shapes: Shapes) -> Places | None:
    """The first convolution and the last matrix, as in most networks."""
    stems = [key for key, shape in shapes.items() if len(shape) == 4]
    heads = [key for key, shape in shapes.items() if len(shape) == 2]
    if not stems or not heads:
        return None
    return Places(((heads[-1], 0),), ((stems[0], 1),), _POSITIONS)


def _sizes(places: Places, shapes: Shapes) -> list[int]:
    """Sides of the square images with as many patches as there are positions.

    A few positions may belong to other tokens.
    """
    patch = next((shapes[key][-1] for key, _ in places.stem if key in _PATCHES), 0)
    tokens = [
        shape[1]
        for key, shape in shapes.items()
        if len(shape) == 3 and key.rpartition(".")[2] in _POSITIONS
    ]
    if len(tokens) != 1:
        return []
    patches = [tokens[0] - more for more in range(_MAX_EXTRA + 1) if tokens[0] > more]
    sides = [isqrt(n) for n in patches if isqrt(n) ** 2 == n]
    sizes = dict.fromkeys(patch * side for side in sides)
    # Some models compute tables of this size while they are built.
    return [size for size in sizes if 0 < size <= _MAX_IMAGE]


@cache
def _table() -> Mapping[Places, Mapping[str, tuple[str, ...]]]:
    groups: dict[Places, dict[str, tuple[str, ...]]] = {}
    current: dict[str, tuple[str, ...]] = {}
    for line in files(__package__).joinpath(TABLE).read_text("utf-8").splitlines():
        if line.startswith("@ "):
            head, stem, sized = line[2:].split("\t")
            current = groups.setdefault(
                Places(_places(head), _places(stem), frozenset(sized.split())), {}
            )
        elif not line.startswith("#"):
            signature, _, names = line.partition("\t")
            current[signature] = tuple(names.split())
    return groups


def _places(text: str) -> tuple[tuple[str, int], ...]:
    pairs = (place.rpartition(":") for place in text.split())
    return tuple((key, int(dim)) for key, _, dim in pairs)
