"""Write a landscape to a file of NumPy arrays, and read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robaudit.errors import DataError, UsageError
from robaudit.outcomes import UNREADABLE, read_arrays
from robaudit.report.landscape import Landscape, Losses, Model, PathPoint
from robaudit.report.text import plain

FILE_NAME = "landscape.npz"
_KINDS = ("clean", "robust", "loss")


def write_npz(landscape: Landscape, path: Path) -> None:
    """Write the places ``s`` and ``t``, the sources of the ``models``, and for each kind of loss
    arrays whose first axis is the model: ``clean_mean``, ``clean_standard_error``, ``clean_lines``.

    ``about`` is JSON text: the settings, the labels of the axes, the places of checkpoints, and of
    a path their labels and distances from the plane.
    """
    import numpy as np

    models = landscape.models
    arrays: dict[str, Any] = dict(zip("st", landscape.places, strict=False))
    about = {
        "settings": landscape.settings,
        "labels": landscape.labels,
        "checkpoints": [[*place, source] for place, source in landscape.checkpoints],
        "path": [[point.label, point.off_plane] for point in landscape.path],
    }
    arrays["about"] = np.array(json.dumps(about, allow_nan=False))
    arrays["models"] = np.array([model.source for model in models])
    for kind, losses in models[0].losses.items():
        arrays[f"{kind}_mean"] = np.stack([m.losses[kind].mean for m in models])
        arrays[f"{kind}_standard_error"] = np.stack([m.losses[kind].standard_error for m in models])
        if losses.lines is not None:
            arrays[f"{kind}_lines"] = np.stack([m.losses[kind].lines for m in models])  # type: ignore[misc]
    np.savez_compressed(path, **arrays)


def read_npz(path: Path) -> Landscape:
    """Read a landscape that :func:`write_npz` wrote.

    Raises:
        UsageError: there is no such file.
        DataError: the file holds no landscape.
    """
    try:
        return _landscape(read_arrays(path))
    except FileNotFoundError:
        raise UsageError(f"no landscape at {plain(path)}") from None
    except (*UNREADABLE, TypeError, IndexError) as error:
        raise DataError(
            f"{plain(path)} is no landscape: {type(error).__name__}: {plain(error)}"
        ) from None


def _landscape(arrays: dict[str, Any]) -> Landscape:
    about = json.loads(str(arrays["about"]))
    settings, labels = about["settings"], tuple(str(label) for label in about["labels"])
    if not isinstance(settings["title"], str):
        raise ValueError("its title is no text")
    places = tuple(_finite(arrays[axis]) for axis in "st" if axis == "s" or axis in arrays)
    shape = tuple(size for axis in reversed(places) for size in axis.shape)
    checkpoints = tuple(
        (tuple(float(at) for at in place), str(source)) for *place, source in about["checkpoints"]
    )
    if {len(labels), *(len(place) for place, _ in checkpoints)} != {len(places)}:
        raise ValueError("its labels or checkpoints do not fit its axes")
    path = tuple(PathPoint(str(one), float(off)) for one, off in about.get("path", ()))
    if path and len(path) != len(checkpoints):
        raise ValueError("its path does not fit its checkpoints")
    models = tuple(
        Model(str(source), _losses(arrays, at, shape)) for at, source in enumerate(arrays["models"])
    )
    if not models or not models[0].losses:
        raise ValueError("it has no losses")
    return Landscape(settings, labels, places, models, checkpoints, path)


def _losses(arrays: dict[str, Any], at: int, shape: tuple[int, ...]) -> dict[str, Losses]:
    found = {}
    for kind in _KINDS:
        if f"{kind}_mean" not in arrays:
            continue
        mean = _finite(arrays[f"{kind}_mean"][at])
        error = arrays[f"{kind}_standard_error"][at]
        lines = arrays.get(f"{kind}_lines")
        each = None if lines is None else _finite(lines[at])
        if mean.shape != shape or error.shape != shape or error.dtype != mean.dtype:
            raise ValueError(f"its {kind} loss does not fit its places")
        if each is not None and each.shape[1:] != shape:
            raise ValueError(f"its {kind} loss by line does not fit its places")
        found[kind] = Losses(mean, error, each)
    return found


def _finite(values: Any) -> Any:
    import numpy as np

    if values.dtype != np.float64 or not np.isfinite(values).all():
        raise ValueError("it has losses or places that are no numbers")
    return values
