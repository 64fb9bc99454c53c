"""Word pieces: a tokenizer trained from a corpus, and the plain token lists that encoders work on.

The vocabulary is WordPiece over BERT's normaliser and pre-tokenizer (lower case, accents stripped, split at
spaces and punctuation, so dotted names and snake_case fall apart into words). It is a function of the word
counts alone: the same texts in any order give the same file, byte for byte.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gossamer.kernels.errors import ConfigError

SPECIAL_TOKENS: Final = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_MAX_ALPHABET: Final = 1_000  # characters kept, by frequency; a word with any other is [UNK]
_REPEATS_A_TEXT: Final = 1_000  # words are fed to the trainer in pieces of this many, to bound memory


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int = 8_192) -> Any:
    """Train a WordPiece tokenizer.

    Args:
        texts: The corpus or a sample of it; read once, only word counts are kept.
        vocabulary_size: Pieces in all, the five special ones included. Fewer come out of a small corpus.

    Returns:
        A transformers `PreTrainedTokenizerFast` with the special tokens of BERT. It adds none of them to a
        text: they would only match each other.

    Raises:
        ConfigError: The corpus has no words, or its alphabet alone does not fit in the vocabulary.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
    alphabet = _alphabet(words)
    # The trainer numbers "##x" pieces in the order of a randomly seeded hash table, and breaks ties between
    # pairs by these numbers. Naming them beforehand makes numbers, ties, and so the result, reproducible.
    fixed = [*SPECIAL_TOKENS.values(), *alphabet, *(f"##{character}" for character in alphabet)]
    if not words or len(fixed) > vocabulary_size:
        raise ConfigError(
            f"vocabulary_size is {vocabulary_size:,}, but the corpus ({len(words):,} different words) has "
            f"an alphabet that takes {len(fixed):,}: give more texts or a larger vocabulary"
        )
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.normalizer, draft.pre_tokenizer = normalizer, pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    draft.train_from_iterator(_repeated(words), trainer)
    vocabulary = {piece: number for number, piece in enumerate(_by_number(draft.get_vocab()))}
    final = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    final.normalizer, final.pre_tokenizer = normalizer, pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=final, **SPECIAL_TOKENS)


def _alphabet(words: Counter[str]) -> list[str]:
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    ranked = sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    return sorted(character for character, _ in ranked[:_MAX_ALPHABET])


def _repeated(words: Counter[str]) -> Iterator[str]:
    for word, count in sorted(words.items()):
        for start in range(0, count, _REPEATS_A_TEXT):
            yield " ".join([word] * min(_REPEATS_A_TEXT, count - start))


def _by_number(vocabulary: dict[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


class TextTokenizer:
    """Texts to token numbers, cut at a length; safe to share between threads.

    A transformers tokenizer keeps truncation as state that each call sets; this has one fixed setting.

    Args:
        tokenizer: A transformers fast tokenizer.
        max_tokens: Longer texts are cut here, special tokens counted.
        special_tokens: Whether to add the tokenizer's special tokens ([CLS], [SEP]), if it has a rule for it.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, special_tokens: bool) -> None:
        self._tokens = plain_tokenizer(tokenizer)
        self._tokens.enable_truncation(max_tokens)
        self._special_tokens = special_tokens
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text; a text without any gives an empty list."""
        encodings = self._tokens.encode_batch_fast(list(texts), add_special_tokens=self._special_tokens)
        return [encoding.ids for encoding in encodings]

    def pad(self, tokens: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token lists as `(ids_BL, mask_BL)`, padded on the right to the longest, which counts as at least 1."""
        length = max(1, *(len(row) for row in tokens)) if tokens else 1
        ids_BL = np.full((len(tokens), length), self.pad_id, np.int64)
        mask_BL = np.zeros((len(tokens), length), np.int64)
        for row, numbers in enumerate(tokens):
            ids_BL[row, : len(numbers)] = numbers
            mask_BL[row, : len(numbers)] = 1
        return ids_BL, mask_BL


def plain_tokenizer(tokenizer: Any) -> Any:
    """A copy of the `tokenizers.Tokenizer` in a transformers tokenizer, with no truncation or padding set."""
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
