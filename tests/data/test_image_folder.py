"""Folders of images: order, labels, channels, refusals."""

import numpy as np
import pytest
import torch
from PIL import Image

from robaudit.data import load_examples
from robaudit.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def save(folder, name, pixels):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_classes_and_files_in_the_order_of_their_names(tmp_path):
    for name, pixels in zip(["b/2.png", "a/9.png", "b/1.png", "c/x.png"], RGB, strict=True):
        save(tmp_path, name, pixels)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    examples = load_examples(f"imagefolder:{tmp_path}")
    assert examples.y.tolist() == [0, 1, 1, 2]
    assert examples.classes == 3
    assert examples.class_names == ("a", "b", "c")
    wanted = torch.from_numpy(RGB[[1, 2, 0, 3]].transpose(0, 3, 1, 2).copy()).float() / 255
    assert torch.equal(examples.x, wanted)
    part = load_examples(f"imagefolder:{tmp_path}", n=2, sample_seed=5)
    assert torch.equal(part.x, examples.x[part.index])


def test_grey_images_have_one_channel(tmp_path):
    save(tmp_path, "a/1.png", RGB[0, :, :, 0])
    examples = load_examples(f"imagefolder:{tmp_path}")
    assert torch.equal(examples.x[0, 0], torch.from_numpy(RGB[0, :, :, 0].copy()).float() / 255)


def test_a_grey_image_in_a_coloured_set_becomes_rgb(tmp_path):
    save(tmp_path, "a/1.png", RGB[0])
    save(tmp_path, "a/2.png", RGB[1, :, :, 0])
    x = load_examples(f"imagefolder:{tmp_path}").x
    assert x.shape == (2, 3, 6, 5)
    assert torch.equal(x[1, 0], x[1, 2])


def test_a_coloured_image_in_a_grey_set_is_refused(tmp_path):
    save(tmp_path, "a/1.png", RGB[0, :, :, 0])
    save(tmp_path, "a/2.png", RGB[1])
    with pytest.raises(DataError, match=r"2\.png: a colour image"):
        load_examples(f"imagefolder:{tmp_path}")


def test_the_first_image_of_another_size_is_named(tmp_path):
    for name, pixels in [("1", RGB[0]), ("2", RGB[1, :4]), ("3", RGB[2, :3])]:
        save(tmp_path, f"a/{name}.png", pixels)
    with pytest.raises(DataError, match=r"2\.png: 5x4 pixels, but 1\.png has 5x6"):
        load_examples(f"imagefolder:{tmp_path}")


def test_only_the_chosen_images_are_decoded(tmp_path):
    save(tmp_path, "a/1.png", RGB[0])
    (tmp_path / "a" / "2.png").write_bytes(b"broken")
    assert len(load_examples(f"imagefolder:{tmp_path}", n=1)) == 1
    with pytest.raises(DataError, match=r"2\.png: not a readable image"):
        load_examples(f"imagefolder:{tmp_path}")


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path):
    save(tmp_path, "a/1.png", RGB[0])
    save(tmp_path, "a/2.png", np.zeros((6, 5), dtype=np.uint16))
    with pytest.raises(DataError, match="I;16"):
        load_examples(f"imagefolder:{tmp_path}")


def test_missing_and_empty_folders_and_other_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load_examples(f"imagefolder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="no images"):
        load_examples(f"imagefolder:{tmp_path}")
    save(tmp_path, "a/1.png", RGB[0])
    with pytest.raises(DataError, match="not train"):
        load_examples(f"imagefolder:{tmp_path}", split="train")


def test_files_may_stay_files_and_are_decoded_when_they_are_looked_at(tmp_path, monkeypatch):
    from robaudit.data import keeping
    from robaudit.engine.images import StoredImages

    for at, pixels in enumerate(RGB):
        save(tmp_path, f"a/{at}.png", pixels)
    told = []
    whole = load_examples(f"imagefolder:{tmp_path}", progress=lambda *done: told.append(done))
    assert told[-1] == (4, 4)
    monkeypatch.setattr(keeping, "_DECODED", 0)
    stored = load_examples(f"imagefolder:{tmp_path}")
    assert isinstance(stored.x, StoredImages)
    assert stored.sha256 == whole.sha256
    (tmp_path / "a" / "3.png").unlink()
    assert torch.equal(stored.x[[2, 0]], whole.x[[2, 0]])
    with pytest.raises(DataError, match="not a readable image"):
        stored.x[3]


def test_many_bytes_stay_bytes(tmp_path, monkeypatch):
    from robaudit.data import keeping
    from robaudit.engine.images import StoredImages

    np.savez(tmp_path / "data.npz", x=RGB, y=np.arange(4))
    whole = load_examples(str(tmp_path / "data.npz"))
    monkeypatch.setattr(keeping, "PLAIN", 0)
    stored = load_examples(str(tmp_path / "data.npz"))
    assert isinstance(stored.x, StoredImages)
    assert stored.sha256 == whole.sha256
    assert torch.equal(stored.x + 0, whole.x)
