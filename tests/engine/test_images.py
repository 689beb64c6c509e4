"""Stored images against the plain tensor of the same images: every way to look at them agrees."""

import copy
import pickle

import numpy as np
import pytest
import torch

from robaudit.engine import images, spilled
from robaudit.engine.images import StoredImages, as_float, rows_of, tiles
from robaudit.engine.spilled import SpilledImages, computed, copied
from robaudit.errors import NotMeasuredError

BYTES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8))
PLAIN = BYTES.float() / 255
ROWS = {
    "number": 3,
    "last": -1,
    "part": slice(2, 7),
    "all": slice(None),
    "none": slice(5, 2),
    "steps": slice(None, None, 3),
    "list": [1, 4],
    "empty list": [],
    "repeated": torch.tensor([3, 3, 0]),
    "scalar": torch.tensor(3),
    "mask": torch.arange(20) > 11,
    "numpy": np.array([5, 1]),
    "numpy number": np.int64(4),
    "numpy mask": np.arange(20) > 3,
    "number and channel": (0, 1),
    "part and channel": (slice(2, 4), 1),
    "stride": (0, slice(None), slice(None, None, 2)),
    "new axis": None,
    "ellipsis": ...,
    "channel of all": (..., 1),
    "pairs": (torch.tensor([1, 2]), torch.tensor([0, 1])),
    "table": torch.tensor([[0, 1], [2, 3]]),
}
OPERATIONS = {
    "plus": lambda x: 1 - x + x * 2,
    "reduced": lambda x: torch.stack([x.sum(), x.mean(), x.amax()]),
    "joined": lambda x: torch.cat([x, x]),
    "flat": lambda x: x.flatten(1),
    "transposed": lambda x: x.permute(0, 2, 3, 1),
    "double": lambda x: x.double(),
    "clone": lambda x: x.clone(),
    "moved": lambda x: x.to("cpu", torch.float64),
    "numpy": lambda x: torch.from_numpy(x.numpy()),
    "list": lambda x: torch.tensor(x.tolist()),
    "repeated": lambda x: x.repeat_interleave(2, 0),
    "network": torch.nn.Conv2d(3, 2, 2, dtype=torch.float32),
    "split": lambda x: torch.cat(torch.split(x, 7)),
    "split channels": lambda x: torch.cat(torch.split(x, 2, 1), 1),
    "iterated": lambda x: torch.stack(list(x)),
    "pickled": lambda x: pickle.loads(pickle.dumps(x)),
    "deep copy": lambda x: copy.deepcopy(x) + 0,
    "compared": lambda x: x > 0.5,
    "batched": torch.func.vmap(lambda image: image.sum(0)),
}


def stored():
    return StoredImages(BYTES.shape, lambda rows: BYTES[rows])


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_rows_are_those_of_the_plain_tensor(rows):
    found = stored()[rows]
    assert type(found) is torch.Tensor
    assert torch.equal(found, PLAIN[rows])


def test_a_row_that_is_not_there_is_refused():
    with pytest.raises(IndexError):
        stored()[20]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operations_see_a_plain_tensor(operation):
    assert torch.equal(operation(stored()), operation(PLAIN))


def test_what_a_tensor_says_of_itself_reads_nothing():
    def never(_):
        raise AssertionError("read")

    x = StoredImages((50_000, 3, 224, 224), never)
    assert isinstance(x, torch.Tensor)
    assert (len(x), x.shape[1:], x.dtype, x.dim()) == (50_000, (3, 224, 224), torch.float32, 4)
    assert x.device.type == "cpu"
    assert x.numel() == 50_000 * 3 * 224 * 224
    assert x.to("cpu") is x
    assert x.detach() is x
    assert x.new_zeros(2).tolist() == [0, 0]
    # A part that is large is read when it is looked at, and no sooner.
    assert len(x[1:]) == 49_999
    assert [len(part) for part in torch.split(x, 30_000)] == [30_000, 20_000]


def test_only_the_rows_asked_for_are_read():
    read = []
    x = StoredImages(BYTES.shape, lambda rows: (read.extend(rows.tolist()), BYTES[rows])[1])
    x[4:6], x[9], rows_of(x, slice(2), torch.device("cpu"))
    assert read == [4, 5, 9, 0, 1]


WRITES = {
    "row": lambda x: x.__setitem__(0, 1.0),
    "add": lambda x: x.add_(1),
    "clamp": lambda x: x.clamp_(0, 1),
    "copy": lambda x: x.copy_(PLAIN),
    "zero": lambda x: x.zero_(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_writing_is_refused_and_not_lost(write):
    with pytest.raises(RuntimeError, match="cannot be written"):
        write(stored())


def test_every_byte_becomes_the_same_float_as_by_division():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_float(every), every.float() / 255)


def test_gradients_flow_past_stored_images():
    weight = torch.ones((), requires_grad=True)
    (weight * stored()).sum().backward()
    assert torch.equal(weight.grad, PLAIN.sum())


def test_tiles_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr(images, "_TILE_BYTES", 3 * PLAIN[0].nbytes)
    assert torch.equal(torch.cat([PLAIN[part] for part in tiles(PLAIN)]), PLAIN)
    assert torch.equal(stored().whole(), PLAIN)


def test_spilled_rows_come_back_in_any_order():
    found = SpilledImages(PLAIN.shape)
    wanted = torch.zeros_like(PLAIN)
    for rows in ([3, 4, 9], slice(5, 8), torch.arange(20) > 15, 0, torch.tensor([12, 11])):
        found[rows] = PLAIN[rows]
        wanted[rows] = PLAIN[rows]
    assert torch.equal(found.whole(), wanted)
    mixed = torch.randint(0, 20, (60,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(found[mixed], wanted[mixed])
    found[[7, 3]] = PLAIN[[1, 2]]
    assert torch.equal(found[[3, 7]], PLAIN[[2, 1]])


def test_a_copy_is_written_over_and_the_first_stays(monkeypatch):
    monkeypatch.setattr(spilled, "LARGE", 0)
    x = stored()
    changed = copied(x)
    assert isinstance(changed, SpilledImages)
    changed[torch.tensor([2, 5])] = 1 - PLAIN[[2, 5]]
    wanted = PLAIN.clone()
    wanted[[2, 5]] = 1 - wanted[[2, 5]]
    assert torch.equal(changed.whole(), wanted)
    assert torch.equal(x.whole(), PLAIN)
    again = SpilledImages(x.shape)
    again[2:] = changed[2:]
    assert torch.equal(again[2:], wanted[2:])


@pytest.mark.parametrize("kind", [stored, PLAIN.clone])
def test_computed_images_are_the_function_of_the_others(monkeypatch, kind):
    monkeypatch.setattr(spilled, "LARGE", 0)
    x = kind()
    found = computed(x, lambda rows: 1 - x[rows])
    assert isinstance(found, StoredImages) == isinstance(x, StoredImages)
    assert torch.equal(found[:], 1 - PLAIN)


def test_plain_tensors_stay_plain(monkeypatch):
    monkeypatch.setattr(spilled, "LARGE", 0)
    assert type(copied(PLAIN)) is torch.Tensor
    assert copied(PLAIN.double()).dtype == torch.float64


def test_no_room_on_the_disk_is_said(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spilled.tempfile, "TemporaryFile", full)
    with pytest.raises(NotMeasuredError, match="No space left on device") as caught:
        SpilledImages((50_000, 3, 224, 224))
    assert "28.0 GiB" in caught.value.message
    assert "TMPDIR" in (caught.value.advice or "")
