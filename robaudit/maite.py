"""Adapters to MAITE, the protocols of JATIC's tools for image classification.

They are structural: nothing of MAITE is imported. Source: MAITE's protocols ``Model``, ``Dataset``
and ``Augmentation`` of image classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robaudit.attacks import pgd
from robaudit.data.keeping import content_hash
from robaudit.engine import Runner, device_of, seed_for
from robaudit.errors import DataError
from robaudit.types import Examples, ThreatModel

Datum = tuple[np.ndarray, np.ndarray, Mapping[str, Any]]
"""Image ``(c, h, w)``, one-hot label ``(k,)``, and metadata with an ``id``."""


class MaiteModel:
    """A classifier as a MAITE ``Model``: a batch of images to probabilities ``(k,)``."""

    def __init__(self, model: nn.Module, id: str = "robaudit", names: Sequence[str] = ()) -> None:
        self.model = model
        self.metadata = {"id": id, "index2label": dict(enumerate(names))}

    def __call__(self, batch: Sequence[Any], /) -> list[np.ndarray]:
        with Runner.of(self.model) as runner:
            return list(runner.logits(_images(batch)).softmax(1).cpu().numpy())


class MaiteDataset:
    """Examples as a MAITE ``Dataset``."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.classes = examples.classes or int(examples.y.max()) + 1
        names = dict(enumerate(examples.class_names))
        self.metadata = {"id": f"{examples.name} {examples.split}", "index2label": names}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, at: int, /) -> Datum:
        if not -len(self) <= at < len(self):
            raise IndexError(at)  # it ends iteration
        one = self.examples
        target = np.eye(self.classes, dtype=np.float32)[int(one.y[at])]
        return one.x[at].numpy(), target, {"id": int(one.index[at])}


class PgdAugmentation:
    """PGD as a MAITE ``Augmentation``: a batch, its images moved within the threat model.

    An image's random start depends on its datum's ``id`` and the seed, and not on the batch.

    Args:
        settings: further arguments of :func:`robaudit.attacks.pgd`, in float32 unless they say
            otherwise: which faster arithmetic agrees with the network depends on the batch.
    """

    def __init__(self, model: nn.Module, threat: ThreatModel, **settings: Any) -> None:
        self.model, self.threat = model, threat
        self.settings: dict[str, Any] = {"precision": "fp32", **settings}
        self.metadata = {"id": f"PGD, {threat.norm} {threat.eps:g}"}

    def __call__(self, batch: tuple[Sequence[Any], Sequence[Any], Sequence[Any]], /) -> Any:
        images, targets, data = batch
        x, y = _images(images), torch.tensor([int(np.argmax(one)) for one in targets])
        index = torch.tensor([seed_for(0, "datum", str(datum["id"])) for datum in data])
        device = device_of(self.model)
        found = pgd(
            self.model, x.to(device), y.to(device), self.threat, index=index, **self.settings
        )
        return list(found.x.cpu().numpy()), targets, data


def examples_of(dataset: Any, split: str = "test") -> Examples:
    """The examples of a MAITE ``Dataset``, for every function of robaudit.

    Raises:
        DataError: no images, images of several shapes, or pixels outside ``[0, 1]``.
    """
    data = [dataset[at] for at in range(len(dataset))]
    if not data:
        raise DataError("the data set has no images")
    x = _images([image for image, _, _ in data])
    y = torch.tensor([int(np.argmax(target)) for _, target, _ in data])
    known = dict(dataset.metadata.get("index2label", {}))
    classes = len(np.asarray(data[0][1]))
    names = tuple(known.get(label, str(label)) for label in range(classes)) if known else ()
    name, index = str(dataset.metadata["id"]), torch.arange(len(y))
    sha256 = content_hash(x, y)
    return Examples(x, y, index, name, split, sha256, classes, len(y), class_names=names)


def _images(batch: Sequence[Any]) -> Tensor:
    arrays = [np.asarray(image, dtype=np.float32) for image in batch]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise DataError(f"images of shapes {shapes}; each must be (c, h, w), all alike")
    x = torch.from_numpy(np.stack(arrays))
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise DataError("pixels outside [0, 1]", "Divide bytes by 255.")
    return x
