import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gossamer.lsr.losses import flops, infonce, quadratic, same_text


def test_infonce_is_the_mean_negative_log_probability_of_the_own_document() -> None:
    scores_BN = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, -1.0]])
    expected = -(
        math.log(math.exp(2) / (math.exp(2) + 1 + math.e))
        + math.log(math.exp(3) / (1 + math.exp(3) + math.exp(-1)))
    )
    assert infonce(scores_BN).item() == pytest.approx(expected / 2, abs=1e-6)


def test_a_masked_document_counts_for_nothing() -> None:
    scores_BN = torch.tensor([[1.0, 9.0, 0.0], [0.0, 1.0, 9.0]])
    masked_BN = torch.tensor([[False, True, False], [False, False, True]])
    without = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = -torch.log_softmax(without, dim=1)[:, 0].mean()
    torch.testing.assert_close(infonce(scores_BN, masked_BN=masked_BN), expected)


def test_the_own_document_is_never_masked() -> None:
    scores_BN = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    own_BN = torch.eye(3, 4, dtype=torch.bool)
    torch.testing.assert_close(infonce(scores_BN, masked_BN=own_BN), infonce(scores_BN))
    assert bool(own_BN.any()), "the mask that was given is left as it was"


def test_equal_texts_are_no_negatives_of_each_other() -> None:
    queries_B = torch.tensor([1, 2, 1])
    documents_N = torch.tensor([10, 20, 30, 20])
    expected = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], dtype=torch.bool)
    assert torch.equal(same_text(queries_B, documents_N), expected)


def test_flops_squares_the_mean_of_each_term() -> None:
    weights_BV = torch.tensor([[1.0, 0.0, -2.0], [3.0, 0.0, 2.0]])
    assert flops(weights_BV).item() == pytest.approx(2.0**2 + 0 + 2.0**2)


def test_flops_of_a_batch_is_not_the_mean_over_its_halves() -> None:
    weights_BV = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    halves = (flops(weights_BV[:1]) + flops(weights_BV[1:])) / 2
    assert flops(weights_BV).item() == pytest.approx(halves.item() / 2)


@given(st.integers(0, 2_000), st.integers(1, 1_000))
def test_the_warm_up_rises_to_one_and_stays(step: int, warmup_steps: int) -> None:
    share = quadratic(step, warmup_steps)
    assert 0 < share <= quadratic(step + 1, warmup_steps) <= 1
    assert (share == 1) == (step + 1 >= warmup_steps)


def test_the_warm_up_is_quadratic_and_can_be_left_out() -> None:
    assert quadratic(49, 100) == pytest.approx(0.25)
    assert quadratic(0, 0) == 1
