"""Heads: token numbers in, one weight a term out.

Two kinds so far. The *masked-language-model head* reads a text with a transformer and may give weight to any
term of the vocabulary (SPLADE-max, Formal et al. 2021, arXiv 2109.10086). The *table* gives each term that is
present a learned weight and needs no transformer at all, which makes queries free ("inference-free" sparse
retrieval, Geng et al. 2024, arXiv 2411.04403).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.kernels.errors import FormatError
from gossamer.kernels.splade_head import splade_head

Activation = Literal["relu", "log1p_relu"]


class MlmHead(nn.Module):
    """A Hugging Face `…ForMaskedLM` as a sparse encoder: `log1p(relu(max over tokens of the logits))`.

    The model's own multiplication with the vocabulary is switched off, so that it returns what would have been
    multiplied, and `splade_head` does that part without ever holding `[B, L, V]`. All weights stay where they
    are, tied ones tied; but the model's `logits` are hidden states from now on.

    Args:
        model: A masked language model whose output layer is a linear one.
        activation: `relu` as above; `log1p_relu` takes a second logarithm (the l0 activation of arXiv
            2504.14839), which favours many small weights less. The names are sentence-transformers'.

    Raises:
        FormatError: The model's output layer is not a linear one.
    """

    def __init__(self, model: Any, activation: Activation = "relu") -> None:
        super().__init__()
        decoder = model.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            raise FormatError(
                f"{type(model).__name__} has the output layer {type(decoder).__name__}, expected Linear: "
                "use a …ForMaskedLM model such as BertForMaskedLM"
            )
        decoder.forward = _same  # type: ignore[method-assign,assignment]
        self.model = model
        self.activation = activation

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary that the head gives weights to."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    def forward(self, ids_BL: Tensor, mask_BL: Tensor, *, matmul_dtype: torch.dtype | None = None) -> Tensor:
        """Encode a batch.

        Args:
            ids_BL: Token numbers, int64.
            mask_BL: 1 for a token, 0 for padding; a row may be empty.
            matmul_dtype: Precision of the product with the vocabulary; None for the model's own.

        Returns:
            `y_BV` float32, 0 or larger. Special tokens count like any others; an empty row gives zeros.
        """
        nothing_B1 = (
            mask_BL.sum(dim=1, keepdim=True) == 0
        )  # attention over nothing is NaN: let it see padding
        hidden_BLH = self.model(input_ids=ids_BL, attention_mask=mask_BL.masked_fill(nothing_B1, 1)).logits
        decoder = self.model.get_output_embeddings()
        bias_V = decoder.bias if decoder.bias is not None else hidden_BLH.new_zeros(self.n_terms)
        y_BV = splade_head(hidden_BLH, mask_BL.bool(), decoder.weight, bias_V, matmul_dtype=matmul_dtype)
        return y_BV if self.activation == "relu" else torch.log1p(y_BV)


def _same(hidden: Tensor) -> Tensor:
    return hidden


class TableHead(nn.Module):
    """One learned weight a term: a text's vector is the weights of the terms that occur in it.

    Args:
        weight_V: The weights to start from, such as `idf_table`'s.
    """

    def __init__(self, weight_V: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_V.detach().clone().float())

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Encode a batch: `y_BV[b, v] = weight[v]` where v occurs in row b, else 0."""
        present_BV = self.weight.new_zeros(ids_BL.shape[0], self.weight.shape[0])
        present_BV.scatter_reduce_(1, ids_BL, mask_BL.to(present_BV.dtype), "amax")
        return present_BV * self.weight

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring negative weights back to 0; a trainer calls this after each optimiser step.

        Projecting, unlike a relu in `forward`, leaves a weight at 0 its gradient, so it can rise again.
        """
        self.weight.clamp_(min=0)


def idf_table(tokens: Iterable[Sequence[int]], n_terms: int) -> Tensor:
    """Inverse document frequency of each term, `ln(1 + (N - df + .5) / (df + .5))`.

    Args:
        tokens: Token numbers of each document.
        n_terms: Size of the vocabulary.

    Returns:
        float32 `[n_terms]`; terms that never occur have the largest value.
    """
    frequency_V = np.zeros(n_terms)
    n_documents = 0
    for document in tokens:
        frequency_V[np.unique(np.asarray(document, np.int64))] += 1
        n_documents += 1
    return torch.from_numpy(
        np.log1p((n_documents - frequency_V + 0.5) / (frequency_V + 0.5)).astype(np.float32)
    )
