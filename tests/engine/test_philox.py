import random

import numpy as np
import pytest
import torch
from scipy import stats

from robaudit.engine import philox as module
from robaudit.engine.philox import normal, philox, signs, uniform, words

KEY = (0xA4093822, 0x299F31D0)


def by_definition(counter, key):
    """Philox4x32-10 in Python's integers, as the paper writes it."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        p, q = 0xD2511F53 * r0, 0xCD9E8D57 * r1
        r0, l0, r1, l1 = q >> 32 ^ l0 ^ k0, q % 2**32, p >> 32 ^ l1 ^ k1, p % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


def at(counter, key):
    return [int(word) for word in philox(tuple(torch.tensor([c]) for c in counter), key)]


@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_known_answers_of_random123(counter, key, want):
    counter, key, want = ([int(word, 16) for word in text.split()] for text in (counter, key, want))
    assert at(counter, key) == want == by_definition(counter, key)


def test_any_counter_and_key():
    draw = random.Random(0)
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    for _ in range(200):
        *counter, k0, k1 = (
            draw.choice(edges) if draw.random() < 0.3 else draw.getrandbits(32) for _ in range(6)
        )
        assert at(counter, (k0, k1)) == by_definition(counter, (k0, k1))


def test_each_word_is_that_of_its_own_counter():
    examples, queries = [0, 7, 2**32 + 3, 2**62 + 5], [0, 2**32 - 1, 9]
    drawn = words(KEY, torch.tensor(examples)[:, None], torch.tensor(queries), 11)
    assert drawn.shape == (4, 3, 11)
    for row, example in zip(drawn.tolist(), examples, strict=True):
        for own, query in zip(row, queries, strict=True):
            counters = [(j, query, example % 2**32, example >> 32) for j in range(3)]
            assert own == [w for c in counters for w in by_definition(c, KEY)][:11]


@pytest.mark.parametrize("draw", [words, uniform, normal, signs])
def test_rows_belong_to_their_example_and_query_whatever_the_pieces(draw, monkeypatch):
    examples = torch.tensor([3, 1, 4, 1, 5, 9])
    whole = draw(KEY, examples, 2, 101)
    assert torch.equal(whole[1], whole[3])
    assert len(torch.unique(whole, dim=0)) == 5
    assert torch.equal(draw(KEY, examples[2:3], 2, 101)[0], whole[2])
    assert torch.equal(draw(KEY, examples, torch.tensor(2), 101), whole)
    assert torch.equal(draw(KEY, examples[:, None], torch.arange(4), 101)[:, 2], whole)
    assert torch.equal(draw(KEY, examples, 2, 37), whole[:, :37])
    for piece in (1, 5, 40):
        monkeypatch.setattr(module, "_PIECE", piece)
        assert torch.equal(draw(KEY, examples, 2, 101), whole)


@pytest.mark.parametrize("draw", [words, uniform, normal, signs])
def test_no_example_and_no_word(draw):
    none = torch.zeros(0, dtype=torch.long)
    assert draw(KEY, none, 0, 5).shape == (0, 5)
    assert draw(KEY, torch.arange(2), 0, 0).shape == (2, 0)


@pytest.mark.parametrize("draw", [words, uniform, normal, signs])
def test_nothing_is_read_back_to_the_host(draw):
    # On the meta device there is nothing to read.
    example, query = (torch.zeros(4, dtype=torch.long, device="meta") for _ in range(2))
    assert draw(KEY, example, query, 9).shape == (4, 9)
    assert draw(KEY, example, 3, 9).shape == (4, 9)


def test_uniform_draws_are_uniform():
    drawn = uniform(KEY, torch.arange(20), 0, 5000).double()
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert torch.equal(drawn * 2**24, (drawn * 2**24).round())
    assert stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 0.01
    # Neighbours in a row, neighbouring examples and neighbouring queries are independent.
    other = uniform(KEY, torch.arange(20), 1, 5000).double()
    for first, second in (
        (drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1]), (drawn, other)
    ):  # fmt: skip
        cells = (first * 16).long() * 16 + (second * 16).long()
        counts = np.bincount(cells.flatten().numpy(), minlength=256)
        assert stats.chisquare(counts).pvalue > 0.01


def test_every_bit_of_a_word_is_fair():
    drawn = words(KEY, torch.arange(20), 0, 5000)
    for bit in range(32):
        ones = int((drawn >> bit & 1).sum())
        assert abs(ones - 50_000) < 5 * 100_000**0.5 / 2


def test_normal_draws_are_normal():
    drawn = normal(KEY, torch.arange(20), 0, 5000)
    assert stats.kstest(drawn.flatten().double().numpy(), "norm").pvalue > 0.01
    # The two draws of a pair are independent.
    first, second = drawn[:, ::2].flatten().numpy(), drawn[:, 1::2].flatten().numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / len(first) ** 0.5
    assert stats.kstest((first.astype(float) ** 2 + second**2) / 2, "expon").pvalue > 0.01


def test_signs_are_fair_and_each_a_bit():
    drawn = signs(KEY, torch.arange(20), 0, 5000)
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 5 / 100_000**0.5
    bits = words(KEY, torch.arange(20), 0, 2)
    assert torch.equal(drawn[:, 33] < 0, (bits[:, 1] >> 1 & 1).bool())
