"""The SPLADE head: `log1p(relu(max over tokens of H Eᵀ + b))`, without ever holding `[B, L, V]`.

The vocabulary is cut into tiles and the batch into groups of documents of like length, so that a tile's logits stay in
the cache and padding is hardly computed. Three identities make the rest small (Sparton, arXiv:2603.25011): log1p and
relu rise, so the maximum is taken first; `dy/dx = exp(-y)`, so only `y` has to be kept; and the gradient of a term
comes from one token, so the backward pass is two products with a sparse matrix.

Among tokens with the same logit the first one gets the gradient.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from gossamer.kernels.errors import InputError

_GROUP_TOKENS = {
    "cpu": 512
}  # tokens and terms of a tile: 512 * 1,024 logits of two bytes fill a core's cache
_TILE_TERMS = {"cpu": 1024}
_LARGE = 8192  # on a GPU a tile is there to bound memory, and has to be large enough to fill it


def splade_head(
    hidden_BLH: Tensor,
    mask_BL: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    *,
    tile: int | None = None,
    matmul_dtype: torch.dtype | None = None,
) -> Tensor:
    """Pool a masked-language-model head's logits over the tokens of each document.

    Deterministic; gradients flow into every input that wants one, on CPU and GPU.

    Args:
        hidden_BLH: Token states, floating point.
        mask_BL: True or 1 for tokens, False or 0 for padding, which may stand anywhere.
        weight_VH: The head's rows, one a term.
        bias_V: One a term.
        tile: Terms computed at a time; None takes what suits the device.
        matmul_dtype: Type in which logits are computed, such as `torch.bfloat16`, which is several times faster on
            processors that have it; None for the type of `hidden_BLH`. Sums, output and gradients keep their type.

    Returns:
        `y_BV`, never below 0, float32 or wider. A document without any token gives zeros, one with a state that is
        not finite gives NaN.

    Raises:
        InputError: Shapes do not fit each other.
    """
    _check(hidden_BLH, mask_BL, weight_VH, bias_V, tile)
    inputs = (hidden_BLH, mask_BL.bool(), weight_VH, bias_V)
    dtype = matmul_dtype or hidden_BLH.dtype
    if torch.is_grad_enabled() and any(x.requires_grad for x in (hidden_BLH, weight_VH, bias_V)):
        y_BV: Tensor = _SpladeHead.apply(*inputs, tile, dtype)  # type: ignore[no-untyped-call]
        return y_BV
    return _pool(*inputs, tile=tile, dtype=dtype, want_tokens=False)[0]


def splade_head_reference(
    hidden_BLH: Tensor,
    mask_BL: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    *,
    tile: int | None = None,
    matmul_dtype: torch.dtype | None = None,
) -> Tensor:
    """The plain version of `splade_head`: all logits at once, gradients by autograd. `tile` has no meaning here."""
    _check(hidden_BLH, mask_BL, weight_VH, bias_V, tile)
    dtype = matmul_dtype or hidden_BLH.dtype
    logits_BLV = (hidden_BLH.to(dtype) @ weight_VH.to(dtype).T).to(_output_dtype(hidden_BLH)) + bias_V
    logits_BLV = logits_BLV.masked_fill(~mask_BL.bool()[:, :, None], -torch.inf)
    if logits_BLV.shape[1] == 0:
        return logits_BLV.sum(dim=1)
    return torch.log1p(torch.relu(logits_BLV.max(dim=1).values))


def _check(hidden_BLH: Tensor, mask_BL: Tensor, weight_VH: Tensor, bias_V: Tensor, tile: int | None) -> None:
    if hidden_BLH.ndim != 3 or not hidden_BLH.is_floating_point():
        raise InputError(f"hidden_BLH is {_describe(hidden_BLH)}; expected floating point [B, L, H]")
    n_terms, width = len(weight_VH), hidden_BLH.shape[2]
    if mask_BL.shape != hidden_BLH.shape[:2]:
        raise InputError(
            f"mask_BL is {_describe(mask_BL)}; expected {list(hidden_BLH.shape[:2])}, as hidden_BLH has"
        )
    if weight_VH.shape != (n_terms, width):
        raise InputError(f"weight_VH is {_describe(weight_VH)}; expected [V, {width}], as hidden_BLH has")
    if bias_V.shape != (n_terms,):
        raise InputError(f"bias_V is {_describe(bias_V)}; expected [{n_terms}], as weight_VH has")
    if tile is not None and tile < 1:
        raise InputError(f"tile is {tile}; give at least 1, or None")


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _output_dtype(hidden_BLH: Tensor) -> torch.dtype:
    return torch.promote_types(hidden_BLH.dtype, torch.float32)


class _SpladeHead(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes by position
        ctx: Any,
        hidden_BLH: Tensor,
        mask_BL: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor,
        tile: int | None,
        dtype: torch.dtype,
    ) -> Tensor:
        y_BV, token_BV = _pool(
            hidden_BLH, mask_BL, weight_VH, bias_V, tile=tile, dtype=dtype, want_tokens=True
        )
        ctx.save_for_backward(hidden_BLH, weight_VH, y_BV, token_BV)
        ctx.bias_dtype = bias_V.dtype
        return y_BV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BV: Tensor) -> tuple[Tensor | None, ...]:
        hidden_BLH, weight_VH, y_BV, token_BV = ctx.saved_tensors
        wants_hidden, _, wants_weight, wants_bias, _, _ = ctx.needs_input_grad
        grad_BV = torch.where(y_BV > 0, grad_BV * torch.exp(-y_BV), 0)
        grad_hidden = grad_weight = grad_bias = None
        if wants_bias:
            grad_bias = grad_BV.sum(dim=0).to(ctx.bias_dtype)
        if wants_hidden or wants_weight:
            # the non-zeros of a sparse matrix [B * L, V], in order of term
            term_N, document_N = grad_BV.T.nonzero(as_tuple=True)
            value_N = grad_BV[document_N, term_N]
            n_tokens, width = hidden_BLH[:, :, 0].numel(), hidden_BLH.shape[2]
            row_N = document_N * hidden_BLH.shape[1] + token_BV[document_N, term_N]
            if wants_weight:
                grad_weight = _add_rows(
                    hidden_BLH.reshape(n_tokens, width), row_N, value_N, term_N, len(weight_VH)
                )
            if wants_hidden:
                row_N, order_N = row_N.sort(stable=True)
                grad_hidden = _add_rows(weight_VH, term_N[order_N], value_N[order_N], row_N, n_tokens)
                grad_hidden = grad_hidden.view_as(hidden_BLH)
        return grad_hidden, None, grad_weight, grad_bias, None, None


def _add_rows(table_RH: Tensor, from_N: Tensor, value_N: Tensor, to_N: Tensor, n_rows: int) -> Tensor:
    """Row i of the result is the sum of `value * table[from]` over the entries with `to` = i; `to` ascends."""
    starts = torch.searchsorted(to_N, torch.arange(n_rows, device=to_N.device))
    sums = embedding_bag(from_N, table_RH.to(value_N.dtype), starts, mode="sum", per_sample_weights=value_N)
    return sums.to(table_RH.dtype)


class _Group(NamedTuple):
    """Documents of like length, b of them, cut to the tokens of the longest, l."""

    documents_b: Tensor
    positions_bl: Tensor
    """Where the tokens stand in the batch; short documents repeat their first token, which changes no maximum."""


def _groups(mask_BL: Tensor, n_tokens: int) -> Iterator[_Group]:
    """Cut a batch into groups of about `n_tokens` tokens. Documents without tokens are in none."""
    length_B = mask_BL.sum(dim=1)
    length_B, order_B = length_B.sort(descending=True, stable=True)
    mask_BL = mask_BL[order_B]
    position_BL = (~mask_BL).to(torch.uint8).argsort(dim=1, stable=True)  # those of tokens come first
    inside_BL = torch.arange(mask_BL.shape[1], device=mask_BL.device) < length_B[:, None]
    position_BL = torch.where(inside_BL, position_BL, position_BL[:, :1])
    lengths = length_B.tolist()
    begin = 0
    while begin < len(lengths) and lengths[begin] > 0:
        end = min(begin + max(1, n_tokens // lengths[begin]), len(lengths))
        while lengths[end - 1] == 0:
            end -= 1
        yield _Group(order_B[begin:end], position_BL[begin:end, : lengths[begin]])
        begin = end


def _pool(
    hidden_BLH: Tensor,
    mask_BL: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    *,
    tile: int | None,
    dtype: torch.dtype,
    want_tokens: bool,
) -> tuple[Tensor, Tensor]:
    """Compute `y_BV`, and for each entry the position of the token it came from (empty if not wanted)."""
    device = hidden_BLH.device.type
    tile = tile or _TILE_TERMS.get(device, _LARGE)
    groups = list(_groups(mask_BL, _GROUP_TOKENS.get(device, _LARGE)))
    states = [hidden_BLH[group.documents_b[:, None], group.positions_bl].to(dtype) for group in groups]
    shape = (len(hidden_BLH), len(weight_VH))
    y_BV = hidden_BLH.new_zeros(shape, dtype=_output_dtype(hidden_BLH))
    token_type = torch.int16 if hidden_BLH.shape[1] <= 2**15 else torch.int32
    token_BV = torch.zeros(shape if want_tokens else (0,), dtype=token_type, device=hidden_BLH.device)
    for start in range(0, len(weight_VH), tile):
        terms = slice(start, start + tile)
        weight_HT, bias_T = weight_VH[terms].to(dtype).T, bias_V[terms].to(dtype)
        for group, states_blH in zip(groups, states, strict=True):
            logits_blT = torch.addmm(bias_T, states_blH.flatten(0, 1), weight_HT).view(
                *states_blH.shape[:2], -1
            )
            if want_tokens:
                peak_bT, at_bT = _max_over_tokens(logits_blT)
                token_BV[group.documents_b, terms] = group.positions_bl.gather(1, at_bT).to(token_type)
            else:
                peak_bT = logits_blT.amax(dim=1)
            y_BV[group.documents_b, terms] = peak_bT.to(y_BV.dtype)
    # A NaN may carry either sign, and as bits be the least of all: what is not finite goes back in by itself.
    spoilt_V = weight_VH.sum(dim=1, dtype=y_BV.dtype) * 0
    for group, states_blH in zip(groups, states, strict=True):
        y_BV[group.documents_b] += spoilt_V + states_blH.sum(dim=(1, 2), dtype=y_BV.dtype)[:, None] * 0
    return y_BV.relu_().log1p_(), token_BV


def _max_over_tokens(logits_blT: Tensor) -> tuple[Tensor, Tensor]:
    """The largest positive logit of each document and term, and the first token that has it.

    `torch.max` with indices does not vectorise on CPUs, `amax` does. So bits and position are packed into one integer:
    positive floats are ordered as their bits are, and a smaller position makes the larger integer. What is negative
    stays so, in whatever order: the head cuts it off.
    """
    n_tokens = logits_blT.shape[1]
    bits_type, wide = {2: (torch.int16, torch.int32), 4: (torch.int32, torch.int64)}.get(
        logits_blT.itemsize, (None, None)
    )
    if bits_type is None or wide is None or n_tokens > 2**16:
        peak_bT, at_bT = logits_blT.max(dim=1)
        return peak_bT, at_bT
    packed_blT = logits_blT.view(bits_type).to(wide).mul_(2**16)
    packed_blT += torch.arange(2**16 - 1, 2**16 - 1 - n_tokens, -1, dtype=wide, device=logits_blT.device)[
        :, None
    ]
    packed_bT = packed_blT.amax(dim=1)
    return (packed_bT >> 16).to(bits_type).view(logits_blT.dtype), 2**16 - 1 - (packed_bT & 0xFFFF).long()
