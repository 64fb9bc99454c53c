import math

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from gossamer.kernels.errors import FormatError
from gossamer.lsr.heads import MlmHead, TableHead, idf_table


def bert() -> BertForMaskedLM:
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=12,
        )
    )
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model.eval()


IDS_BL = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11], [0, 0, 0, 0]])
MASK_BL = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_the_head_is_the_plain_formula(activation: str) -> None:
    model = bert()
    with torch.no_grad():
        logits_BLV = model(input_ids=IDS_BL[:2], attention_mask=MASK_BL[:2]).logits
        head = MlmHead(model, activation)  # type: ignore[arg-type]
        y_BV = head(IDS_BL, MASK_BL)
    plain_BV = torch.log1p(torch.relu(logits_BLV) * MASK_BL[:2, :, None]).amax(dim=1)
    if activation == "log1p_relu":
        plain_BV = torch.log1p(plain_BV)
    torch.testing.assert_close(y_BV[:2], plain_BV, rtol=1e-5, atol=1e-6)
    assert not y_BV[2].any()
    assert head.n_terms == 40


def test_an_empty_row_spoils_no_gradient() -> None:
    head = MlmHead(bert())
    head(IDS_BL, MASK_BL).sum().backward()
    gradients = [weight.grad for weight in head.parameters() if weight.grad is not None]
    assert len(gradients) > 10
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weights_keep_their_names_and_ties() -> None:
    model = bert()
    names = set(model.state_dict())
    head = MlmHead(model)
    assert set(head.model.state_dict()) == names
    decoder, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert decoder.weight is embedding.weight


def test_a_model_without_words_is_refused() -> None:
    class Odd(torch.nn.Module):
        def get_output_embeddings(self) -> None:
            return None

    with pytest.raises(FormatError, match="ForMaskedLM"):
        MlmHead(Odd())


def test_table() -> None:
    table = TableHead(torch.tensor([5.0, 1.0, 2.0, 3.0]))
    ids_BL = torch.tensor([[1, 1, 3, 0], [2, 0, 0, 0]])
    mask_BL = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    y_BV = table(ids_BL, mask_BL)
    assert y_BV.tolist() == [[0.0, 1.0, 0.0, 3.0], [5.0, 0.0, 2.0, 0.0]]
    y_BV[0].sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_clamping_keeps_the_gradient_alive() -> None:
    table = TableHead(torch.tensor([-1.0, 2.0]))
    table.clamp()
    assert table.weight.tolist() == [0.0, 2.0]
    table(torch.tensor([[0]]), torch.tensor([[1]])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad[0] == 1


def test_idf() -> None:
    table = idf_table(iter([[1, 1, 2], [1], []]), 4)
    expected = [math.log(1 + (3 - df + 0.5) / (df + 0.5)) for df in (0, 2, 1, 0)]
    assert table.tolist() == pytest.approx(expected)
