import pytest
import torch

from gossamer.kernels.errors import ConfigError
from gossamer.lsr.backbone import BackboneConfig, lexical_start
from gossamer.lsr.encoder import EncoderConfig, SparseEncoder
from gossamer.lsr.tokenizer import train_tokenizer

TEXTS = [
    f"the {word} of sparse retrieval number {number}"
    for number, word in enumerate(["index", "row", "term"] * 9)
]
TOKENIZER = train_tokenizer(TEXTS, vocabulary_size=150)


def test_untrained_documents_hold_their_own_tokens() -> None:
    model = lexical_start(BackboneConfig(), TOKENIZER)
    encoder = SparseEncoder(model, TOKENIZER, EncoderConfig(query="mlm"))
    tokens = encoder.tokenize_documents(TEXTS)
    vectors = encoder.encode_documents(TEXTS)
    for row in range(len(TEXTS)):
        terms, weights = vectors.row(row)
        own = set(tokens[row])
        found = set(terms.tolist())
        assert own <= found
        assert len(found - own) <= 1
        of_own = [
            weight for term, weight in zip(terms.tolist(), weights.tolist(), strict=True) if term in own
        ]
        assert min(of_own) > 0.25  # log1p(1 - .5) is .405; an embedding's length varies around 1
        assert max(of_own) < 0.55


def test_the_model_learns_from_every_part() -> None:
    model = lexical_start(BackboneConfig(), TOKENIZER)
    encoder = SparseEncoder(model, TOKENIZER, EncoderConfig(query="mlm"))
    optimizer = torch.optim.Adam(encoder.model.parameters(), lr=1e-3)
    batch = encoder.pad(encoder.tokenize_documents(TEXTS[:4]))
    for _ in range(2):  # the first step moves the output projections off zero, the second all behind them
        optimizer.zero_grad()
        loss = encoder.model.encode_documents_tensor(*batch).square().sum()
        torch.autograd.backward(loss)
        optimizer.step()
    without = [
        name
        for name, weight in encoder.model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert without == []


def test_every_token_sees_the_whole_text() -> None:
    model = lexical_start(BackboneConfig(max_tokens=300, layers=1), TOKENIZER)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.model.layers[0].attn.Wo.weight)
    ids_BL = torch.randint(6, len(TOKENIZER), (1, 300))
    other_BL = ids_BL.clone()
    other_BL[0, -1] = 5
    with torch.inference_mode():
        difference = model(input_ids=ids_BL).logits[0, 0] - model(input_ids=other_BL).logits[0, 0]
    assert difference.abs().max() > 0


def test_seeds() -> None:
    before = torch.random.get_rng_state()
    first, again = (
        lexical_start(BackboneConfig(width=48, heads=2), TOKENIZER, seed=3).state_dict() for _ in range(2)
    )
    other = lexical_start(BackboneConfig(width=48, heads=2), TOKENIZER, seed=4).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.weight"], other["decoder.weight"])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 \\* heads"):
        lexical_start(BackboneConfig(width=30, heads=4), TOKENIZER)
