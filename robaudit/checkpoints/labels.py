"""Whether a data set numbers its classes as the network does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.logits import logits_of
from robaudit.errors import DataError
from robaudit.types import Examples

_MOST = 512
# A network with the right labels has at least this accuracy; a renumbering must add this much.
_RIGHT = 0.5
_GAIN = 0.25


def classes_guessed(examples: Examples, outputs: int) -> int:
    """Number of classes that chance accuracy is computed for.

    If all labels are the same class, that is the number of outputs.
    """
    if bool((examples.y == examples.y[0]).all()):
        return outputs
    return min(examples.classes or int(examples.y.max()) + 1, outputs)


def outputs_of(model: nn.Module, examples: Examples) -> int:
    """Number of classes of the network."""
    with frozen(model), torch.no_grad():
        return int(logits_of(model, examples.x[:2].to(device_of(model))).shape[1])


def check_numbering(model: nn.Module, examples: Examples, accuracy: float) -> None:
    """Refuse labels that fit the network only after renumbering.

    The output that the images of each label mostly get is read from half of the examples; the other
    half gives the accuracy with that numbering.

    Args:
        accuracy: of the network on these examples.

    Raises:
        DataError: with another numbering the accuracy is far higher.
    """
    n = min(len(examples), _MOST)
    if accuracy >= _RIGHT or n < 4:
        return
    rows = torch.arange(n) * len(examples) // n
    # Sorted by label, so that each half has images of all.
    y, order = examples.y[rows].sort(stable=True)
    with frozen(model):
        logits = Runner(model, device_of(model)).logits(examples.x[rows]).cpu()
    predicted = logits.argmax(1)[order]
    mapping = _mapping(y[0::2], predicted[0::2])
    if len(mapping) < 2 or len(set(mapping.values())) < len(mapping):
        return
    mapped = torch.tensor([mapping.get(int(label), -1) for label in y[1::2]])
    fits = float((mapped == predicted[1::2]).float().mean())
    if fits < accuracy + _GAIN:
        return
    raise DataError(
        f"the labels of {examples.name} are not numbered as the network's outputs: it is right on "
        f"{accuracy:.1%} of the images as they are, and on {fits:.1%} with {_words(mapping)}",
        "Number the labels as in training (folders 00, 01, ...), or have an --arch factory reorder "
        "the outputs.",
    )


def _mapping(y: Tensor, predicted: Tensor) -> dict[int, int]:
    """For each label the output that its images mostly get."""
    return {label: int(predicted[y == label].mode().values) for label in sorted(set(y.tolist()))}


def _words(mapping: dict[int, int]) -> str:
    shifts = {output - label for label, output in mapping.items()}
    if len(shifts) == 1:
        shift = shifts.pop()
        if shift == -1:
            return "labels counted from 0, not from 1"
        return f"{abs(shift)} {'added to' if shift > 0 else 'taken from'} each label"
    as_text = sorted(range(max(max(mapping), max(mapping.values())) + 1), key=str)
    if all(label < len(as_text) and as_text[label] == to for label, to in mapping.items()):
        return "the classes in the order of numbers: they are sorted as text, 0, 1, 10, 11, ..., 2"
    listed = [f"{label} as {to}" for label, to in mapping.items() if label != to][:6]
    more = ", ..." if len(mapping) > len(listed) else ""
    ordered = list(mapping.values()) == sorted(mapping.values())
    subset = "a subset of the classes in their order" if ordered else "the labels"
    return f"{subset} renumbered: {', '.join(listed)}{more}"
