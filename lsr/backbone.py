"""Small masked language models to start from, in Hugging Face's own classes.

*Lexical start*: before any training, a document's vector holds exactly the document's own word pieces, so that
training begins at something like term matching and only has to learn weights and expansions.
"""

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt

from gossamer.kernels.errors import ConfigError

_START_BIAS = -0.5  # a token's logit for itself is about 1, for any other about 0 ± H**-0.5


class BackboneConfig(BaseModel):
    """Size of a backbone. The default trains in minutes on two CPU cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: PositiveInt = 2
    width: PositiveInt = 192
    heads: PositiveInt = 3
    mlp_width: PositiveInt = 512
    max_tokens: PositiveInt = 512
    """The longest input the saved model claims to take; positions are rotary, so nothing is stored for them."""


def lexical_start(config: BackboneConfig, tokenizer: Any, *, seed: int = 0) -> Any:
    """A `ModernBertForMaskedLM` whose untrained vectors are the texts' own tokens.

    The blocks are pre-norm and their two output projections are zero, so a token's hidden state is its
    embedding. Embeddings are drawn from N(0, 1/H) and tied to the decoder; the prediction head is an identity
    that brings the hidden state to length 1; the decoder's bias is -0.5. Then a token's logit for itself is
    about .5, and for any other a normal variable around -.5 with deviation `H**-0.5`, so hardly ever positive.

    Args:
        config: Sizes.
        tokenizer: The tokenizer whose vocabulary the model gets.
        seed: Seed of the embeddings and of the blocks' inner weights.

    Returns:
        The model in evaluation mode, float32, on the CPU. Every layer attends to the whole text.

    Raises:
        ConfigError: `width` is no multiple of `heads`, or the width of a head is odd (rotary positions come
            in pairs).
    """
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    if config.width % (2 * config.heads):
        raise ConfigError(
            f"width {config.width} is no multiple of 2 * heads = {2 * config.heads}: change either"
        )
    vocabulary = len(tokenizer)
    hf_config = ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.max_tokens,
        layer_types=["full_attention"] * config.layers,
        classifier_activation="linear",
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        bos_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        eos_token_id=tokenizer.sep_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ModernBertForMaskedLM(hf_config)
        with torch.no_grad():
            torch.nn.init.normal_(model.decoder.weight, std=config.width**-0.5)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.attn.Wo.weight.zero_()
            layer.mlp.Wo.weight.zero_()
        model.head.dense.weight.copy_(torch.eye(config.width))
        model.head.norm.weight.fill_(config.width**-0.5)
        model.decoder.bias.fill_(_START_BIAS)
    return model.eval()
