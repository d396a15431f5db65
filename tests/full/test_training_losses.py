"""Losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from flawscope.training.losses import dice_loss, focal_loss, map_loss, zero_shot_loss


def test_focal_loss_by_hand() -> None:
    probability, target = torch.tensor([0.9, 0.4]), torch.tensor([1, 0])
    expected = -(0.1**2 * math.log(0.9) + 0.4**2 * math.log(0.6)) / 2
    assert float(focal_loss(probability, target)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_finite_when_wholly_wrong_and_zero_when_right() -> None:
    assert float(focal_loss(torch.tensor([0.0]), torch.tensor([1]))) == pytest.approx(-math.log(1e-5), rel=1e-3)
    assert float(focal_loss(torch.tensor([1.0, 0.0]), torch.tensor([1, 0]))) == 0.0


def test_dice_loss_by_hand_is_a_mean_over_pictures() -> None:
    probability = torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]])
    target = torch.tensor([[[1, 0]], [[1, 0]]])
    first = 1 - (2 * 0.5 + 1) / (1 + 1 + 1)
    assert float(dice_loss(probability, target)) == pytest.approx((first + 0.0) / 2)


def test_dice_loss_of_a_good_picture_vanishes_with_its_map() -> None:
    nothing = torch.zeros(1, 4, 4)
    values = [float(dice_loss(torch.full((1, 4, 4), p), nothing)) for p in (0.5, 0.1, 0.0)]
    assert values[0] > values[1] > values[2] == 0.0


@pytest.mark.parametrize("fill", [0, 1])
def test_losses_are_finite_with_gradients_for_all_good_and_all_defective_batches_of_one(fill: int) -> None:
    logits = torch.zeros(1, 2, 3, 3, requires_grad=True)
    normal, abnormal = logits.softmax(1).unbind(1)
    map_loss(normal, abnormal, torch.full((1, 3, 3), fill)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_zero_shot_loss_weighs_its_parts() -> None:
    image_logits, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    normal, abnormal, mask = torch.full((1, 1, 2), 0.5), torch.full((1, 1, 2), 0.5), torch.tensor([[[1, 0]]])
    one_map = 0.25 * math.log(2) + 2 * (1 - 2 / 3)
    assert float(map_loss(normal, abnormal, mask)) == pytest.approx(one_map)
    total = zero_shot_loss(image_logits, labels, [(normal, abnormal)] * 2, mask, torch.tensor(0.5))
    assert float(total) == pytest.approx(math.log(2) + 4 * 2 * one_map + 0.1 * 0.5)


def test_a_batch_of_two_equals_the_mean_of_its_pictures() -> None:
    torch.manual_seed(0)
    maps, masks = torch.rand(2, 3, 3), (torch.rand(2, 3, 3) > 0.5).long()
    whole = map_loss(1 - maps, maps, masks)
    parts = [map_loss(1 - maps[i : i + 1], maps[i : i + 1], masks[i : i + 1]) for i in range(2)]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, rel=1e-5)
