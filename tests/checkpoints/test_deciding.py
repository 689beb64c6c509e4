"""What evidence excludes: against losses that are drawn with known means."""

import pytest
import torch

from robaudit.checkpoints.deciding import (
    Outcomes,
    agree,
    left,
    likeliest,
    lowest,
    networks_left,
    worth_attacking,
)


def evidence(clean=0.5, robust=1.0, right=0.8, stands=0.6, n=1000, seed=0, **said):
    """Losses about these means, all candidates' noise alike; the first share of images right."""
    noise = torch.randn(1, n, generator=torch.Generator().manual_seed(seed)).double() * 0.3
    order = torch.randperm(n, generator=torch.Generator().manual_seed(7))
    place = torch.empty(n).double()
    place[order] = torch.arange(n).double() / n
    return Outcomes(
        clean + noise, (place < right)[None], robust + noise, (place < stands)[None], **said
    )


def test_a_robust_loss_within_the_tolerance_excludes_nothing():
    found = [evidence(robust=1.0), evidence(robust=1.04), evidence(robust=1.2)]
    assert left(found) == [0, 1]


def test_noise_keeps_what_the_tolerance_does_not():
    noisy = Outcomes(*(getattr(evidence(), name) for name in ("clean", "right")),
                     evidence(robust=1.08, seed=1).robust, evidence().stands)  # fmt: skip
    assert left([evidence(), noisy]) == [0, 1]
    assert left([evidence(), evidence(robust=1.08)]) == [0]


def test_the_robust_loss_of_an_adversarially_trained_network_counts_alone():
    # As SDP's MNIST network: another normalisation is better on clean images and has no robustness.
    truth, other = evidence(0.15, 0.65, 0.95, 0.76), evidence(0.11, 4.3, 0.96, 0.12)
    assert left([other, truth]) == [1]


def test_the_clean_loss_of_a_network_trained_on_clean_images_counts_alone():
    truth, damped = evidence(0.011, 8.0, 0.99, 0.02), evidence(0.06, 4.0, 0.97, 0.1)
    assert left([damped, truth]) == [1]


def test_in_doubt_both_losses_must_speak():
    # Attacked far beyond the radius of training: the robust loss prefers the damped network.
    truth, damped = evidence(0.045, 3.4, 0.99, 0.46), evidence(0.078, 2.3, 0.98, 0.33)
    assert left([truth, damped]) == [0, 1]


def test_a_candidate_without_gradients_is_judged_on_clean_images_alone():
    silent = evidence(0.5, 0.5, 0.8, 0.8, mute=True)
    assert left([evidence(), silent]) == [0, 1]
    assert not agree([evidence(), silent], 0)
    assert left([evidence(), evidence(1.0, 1.0, 0.8, 0.8, mute=True)]) == [0]


def test_another_data_sets_normalisation_falls_where_it_is_better_in_nothing():
    own, foreign = evidence(0.5, 1.0), evidence(0.52, 1.02, foreign=True)
    assert left([foreign, own]) == [1]
    assert left([evidence(0.48, 1.02, foreign=True), own]) == [0, 1]
    assert likeliest([evidence(0.5, 0.99, foreign=True), own]) == 1
    assert lowest([evidence(stands=0.5, foreign=True), own]) == 1


def test_the_lowest_robust_accuracy_is_taken_and_a_tie_goes_to_the_first():
    found = [evidence(stands=0.61), evidence(stands=0.6), evidence(stands=0.6)]
    assert lowest(found) == 1


@pytest.mark.parametrize(("other", "alike"), [(0.6, True), (0.605, True), (0.612, False)])
def test_one_point_of_robust_accuracy_is_agreement(other, alike):
    assert agree([evidence(), evidence(stands=other)], 0) is alike


def test_agreement_takes_enough_images():
    few = [evidence(n=60), evidence(n=60)]
    assert not agree(few, 0)
    flips = evidence(n=1000)
    stands = flips.stands.clone()
    stands[0, :60] ^= True  # as many up as down would still leave the difference unknown
    noisy = Outcomes(flips.clean, flips.right, flips.robust, stands)
    assert not agree([flips, noisy], 0) or stands.sum() == flips.stands.sum()


def test_agreement_needs_the_clean_accuracies_too():
    assert agree([evidence(), evidence(right=0.815)], 0)
    assert not agree([evidence(), evidence(right=0.84)], 0)


def test_agreement_is_asked_of_every_checkpoint_of_a_run():
    def two(first, second):
        parts = [evidence(stands=first), evidence(stands=second)]
        return Outcomes(*(torch.cat([getattr(one, name) for one in parts])
                          for name in ("clean", "right", "robust", "stands")))  # fmt: skip

    assert agree([two(0.6, 0.6), two(0.6, 0.605)], 0)
    # The mean over the run hides a point and a half up and down.
    assert not agree([two(0.6, 0.6), two(0.615, 0.585)], 0)


def test_networks_are_told_by_accuracy_three_standard_errors_apart():
    found = [evidence(right=0.8), evidence(right=0.795), evidence(right=0.7)]
    assert networks_left(found) == [0, 1]
    assert networks_left([evidence(right=0.8, n=20), evidence(right=0.7, n=20)]) == [0, 1]


def test_what_is_far_less_accurate_is_not_attacked():
    assert worth_attacking([evidence(right=0.8), evidence(right=0.76), evidence(right=0.7)]) == [
        0,
        1,
    ]


def test_accuracies_are_compared_on_the_images_that_all_were_tried_on():
    many, few = evidence(right=0.8, n=1000), evidence(right=0.8, n=64)
    assert networks_left([many, few]) == [0, 1]
    assert worth_attacking([few, many]) == [0, 1]


def test_losses_are_compared_on_the_images_that_all_were_attacked_on():
    many, few = evidence(), evidence(n=1000)
    few = Outcomes(few.clean, few.right, few.robust[:, :128], few.stands[:, :128])
    for found in ([many, few], [few, many]):
        assert left(found) == [0, 1]
        assert lowest(found) == 0
        assert likeliest(found) == 0
        assert agree(found, 0)
