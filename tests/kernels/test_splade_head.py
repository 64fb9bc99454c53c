"""The tiled head against the plain one: values, gradients, padding, ties, types, and what it keeps."""

import pytest
import torch
from torch import Tensor

from gossamer.kernels import splade_head as module
from gossamer.kernels.errors import InputError
from gossamer.kernels.splade_head import splade_head, splade_head_reference

HEADS = [splade_head, splade_head_reference]


def make_inputs(
    n_documents: int,
    n_tokens: int,
    width: int,
    n_terms: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, a mask with holes and at least one empty row, weights, bias; all but the mask want gradients."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_documents, n_tokens, width, generator=random, dtype=dtype)
    mask = torch.rand(n_documents, n_tokens, generator=random) < 0.6
    mask[n_documents // 2] = False
    weight = torch.randn(n_terms, width, generator=random, dtype=dtype)
    bias = torch.randn(n_terms, generator=random, dtype=dtype)
    return hidden.requires_grad_(), mask, weight.requires_grad_(), bias.requires_grad_()


def gradients(head, inputs: tuple[Tensor, ...], **options) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    y_BV = head(*inputs, **options)
    grad_BV = torch.randn(y_BV.shape, generator=torch.Generator().manual_seed(1), dtype=y_BV.dtype)
    wanted = [x for x in inputs if x.requires_grad]
    return y_BV.detach(), *torch.autograd.grad(y_BV, wanted, grad_BV)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (5, 9, 8, 33), (17, 40, 12, 130)])
@pytest.mark.parametrize("tile", [None, 1, 16])
def test_values_and_gradients_equal_the_reference(
    dtype: torch.dtype, shape: tuple[int, int, int, int], tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._GROUP_TOKENS, "cpu", 60)  # several groups
    inputs = make_inputs(*shape, dtype=dtype)
    for found, expected in zip(
        gradients(splade_head, inputs, tile=tile), gradients(splade_head_reference, inputs), strict=True
    ):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(splade_head(*inputs, tile=tile), splade_head_reference(*inputs))


def test_gradients_by_finite_differences() -> None:
    hidden, mask, weight, bias = make_inputs(3, 4, 3, 6, torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: splade_head(h, mask, w, b, tile=4), (hidden, weight, bias)
    )


@pytest.mark.parametrize("head", HEADS)
def test_padding_has_no_influence(head) -> None:  # type: ignore[no-untyped-def]
    hidden, mask, weight, bias = make_inputs(6, 8, 5, 20)
    clean = gradients(head, (hidden, mask, weight, bias))
    with torch.no_grad():
        garbage = torch.where(mask[:, :, None], hidden, 1e9)
    dirty = gradients(head, (garbage.requires_grad_(), mask, weight, bias))
    for x, y in zip(clean, dirty, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)
    assert (clean[0][3] == 0).all()  # the row without tokens
    assert (clean[1][~mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_equal_logits_the_first_token_gets_the_gradient(dtype: torch.dtype) -> None:
    hidden = torch.ones(2, 5, 3, dtype=dtype, requires_grad=True)
    mask = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]])
    y_BV = splade_head(hidden, mask, torch.ones(4, 3, dtype=dtype), torch.zeros(4, dtype=dtype))
    (grad,) = torch.autograd.grad(y_BV.sum(), hidden)
    assert grad.abs().sum(dim=2).gt(0).int().tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("frozen", [(0,), (2,), (3,), (0, 2), (2, 3), (0, 3)])
def test_frozen_inputs_get_no_gradient(head, frozen: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    inputs = make_inputs(4, 6, 5, 12)
    everything = gradients(splade_head_reference, inputs)
    for position in frozen:
        inputs[position].requires_grad_(False)
    left = [everything[0]] + [
        everything[i] for i, position in ((1, 0), (2, 2), (3, 3)) if position not in frozen
    ]
    for found, expected in zip(gradients(head, inputs), left, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("want_gradients", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_keep_float32_outside(dtype: torch.dtype, want_gradients: bool) -> None:
    inputs = make_inputs(9, 12, 16, 40)
    with torch.set_grad_enabled(want_gradients):
        y_BV = splade_head(*inputs, tile=16, matmul_dtype=dtype)
        expected = splade_head_reference(*inputs)
    assert y_BV.dtype == torch.float32
    torch.testing.assert_close(y_BV, expected, rtol=0.05, atol=0.05)
    if want_gradients:
        for x, y in zip(
            gradients(splade_head, inputs, matmul_dtype=dtype),
            gradients(splade_head_reference, inputs),
            strict=True,
        ):
            assert x.dtype == y.dtype
            assert torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0) > 0.98


def test_states_of_half_precision_with_weights_of_full() -> None:
    """What automatic mixed precision hands over."""
    hidden, mask, weight, bias = make_inputs(4, 6, 8, 20)
    half = hidden.detach().bfloat16().requires_grad_()
    found = gradients(splade_head, (half, mask, weight, bias))
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.float32, torch.float32]
    with torch.autocast("cpu", torch.bfloat16):
        y_BV = splade_head(hidden, mask, weight, bias)
    torch.testing.assert_close(y_BV, found[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    hidden, mask, weight, bias = make_inputs(3, 4, 3, 6)
    mask[:] = True
    with torch.no_grad():
        hidden[2, 1] = bad
        assert splade_head(hidden, mask, weight, bias).isnan().tolist() == [
            [False] * 6,
            [False] * 6,
            [True] * 6,
        ]
        weight[4, 1] = bad
    found = splade_head(hidden, mask, weight, bias)
    assert found[:2].isnan().tolist() == [[False, False, False, False, True, False]] * 2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0)])
def test_empty_dimensions(head, shape: tuple[int, int, int, int]) -> None:  # type: ignore[no-untyped-def]
    n_documents, n_tokens, width, n_terms = shape
    hidden = torch.ones(n_documents, n_tokens, width, requires_grad=True)
    mask = torch.ones(n_documents, n_tokens, dtype=torch.bool)
    y_BV = head(hidden, mask, torch.ones(n_terms, width), torch.zeros(n_terms))
    assert y_BV.shape == (n_documents, n_terms)
    assert (y_BV == 0).all() == (n_tokens == 0 or y_BV.numel() == 0)


def test_inputs_that_are_not_contiguous() -> None:
    hidden, mask, weight, bias = make_inputs(4, 6, 8, 20)
    views = (hidden.mT.contiguous().mT, mask.T.contiguous().T, weight.T.contiguous().T, bias.expand(2, -1)[1])
    for x, y in zip(
        gradients(splade_head, tuple(x.detach().requires_grad_(x.is_floating_point()) for x in views)),
        gradients(splade_head, (hidden, mask, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_the_same_bits_every_time() -> None:
    inputs = make_inputs(16, 24, 16, 200)
    for first, second in zip(gradients(splade_head, inputs), gradients(splade_head, inputs), strict=True):
        assert torch.equal(first, second)


def test_nothing_of_the_size_of_all_logits_is_kept() -> None:
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.itemsize)
        return tensor

    inputs = make_inputs(4, 64, 8, 500)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        splade_head(*inputs)
    assert sum(kept) == 4 * 64 * 8 * 4 + 500 * 8 * 4 + 4 * 500 * (
        4 + 2
    )  # states, weights, y and int16 positions


def test_shapes_that_do_not_fit_are_refused() -> None:
    hidden, mask, weight, bias = make_inputs(3, 4, 5, 6)
    for inputs, message in [
        ((hidden[0], mask, weight, bias), "hidden_BLH is"),
        ((hidden.long(), mask, weight, bias), "hidden_BLH is"),
        ((hidden, mask[:, :2], weight, bias), r"mask_BL is .*expected \[3, 4\]"),
        ((hidden, mask, weight[:, :4], bias), r"weight_VH is .*expected \[V, 5\]"),
        ((hidden, mask, weight, bias[:5]), r"bias_V is .*expected \[6\]"),
    ]:
        with pytest.raises(InputError, match=message):
            splade_head(*inputs)
    with pytest.raises(InputError, match="tile is 0"):
        splade_head(hidden, mask, weight, bias, tile=0)
