"""An untrained encoder for a corpus: tokenizer, backbone and query table, made from its texts."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from gossamer.lsr.backbone import BackboneConfig, lexical_start
from gossamer.lsr.data import corpus_texts, document_texts, read_corpus
from gossamer.lsr.encoder import EncoderConfig, SparseEncoder
from gossamer.lsr.heads import idf_table
from gossamer.lsr.tokenizer import TextTokenizer, train_tokenizer

_ALL_TOKENS = 1 << 20  # document frequencies are counted over whole texts


class StartConfig(BaseModel):
    """What a new encoder is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: NonNegativeInt = 0
    vocabulary_size: PositiveInt = 8_192
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)


def start_encoder(config: StartConfig, corpus: Path | str, *, name: str = "sparse-encoder") -> SparseEncoder:
    """Makes an encoder that already matches words: the lexical start, with inverse document frequencies for queries.

    Args:
        config: Sizes and seed.
        corpus: What `gossamer.lsr.data.read_corpus` reads; it is streamed twice.
        name: Name of the encoder.

    Returns:
        The encoder; train it with `gossamer.lsr.train`.

    Raises:
        ConfigError: If the sizes do not go together, or the corpus is too small for the vocabulary.
    """
    tokenizer = train_tokenizer(corpus_texts(corpus), vocabulary_size=config.vocabulary_size)
    model = lexical_start(config.backbone, tokenizer, seed=config.seed)
    table = None
    if config.encoder.query == "table":
        whole = TextTokenizer(tokenizer, max_tokens=_ALL_TOKENS, special_tokens=False)
        tokens = (row for batch in read_corpus(corpus) for row in whole(document_texts(batch)))
        table = idf_table(tokens, len(tokenizer))
    return SparseEncoder(model, tokenizer, config.encoder, table, name=name)
