import random

import pytest

from gossamer.kernels.errors import ConfigError
from gossamer.lsr.tokenizer import TextTokenizer, plain_tokenizer, train_tokenizer

TEXTS = [
    f"def read_{name}(self, path): Read the {name} of a file, and return it."
    for name in ("line", "byte", "header")
]
TEXTS += ["Ünïcode is strïpped of äccents; RARE glyphs ☃ stay.", "os.path.join joins paths"]


def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts() -> None:
    words = [f"word{number} other{number % 7} {'x' * (number % 5)}y" for number in range(400)]
    trained = set()
    for seed in range(4):  # each training hashes with another random seed
        random.Random(seed).shuffle(words)
        trained.add(train_tokenizer(words, vocabulary_size=150).backend_tokenizer.to_str())
    assert len(trained) == 1


def test_names_fall_apart_into_words() -> None:
    tokenizer = train_tokenizer(TEXTS * 5, vocabulary_size=300)
    assert tokenizer.tokenize("Read_Header os.path") == ["read", "_", "header", "os", ".", "path"]
    assert tokenizer.tokenize("lïne") == ["line"]


def test_special_tokens_exist_but_are_not_added() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=200)
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id] == [0, 1, 2]
    assert tokenizer("read")["input_ids"] == tokenizer("read", add_special_tokens=False)["input_ids"]
    assert tokenizer.tokenize("Ω") == ["[UNK]"]


def test_size() -> None:
    assert len(train_tokenizer(TEXTS, vocabulary_size=110)) == 110
    with pytest.raises(ConfigError, match="larger vocabulary"):
        train_tokenizer(TEXTS, vocabulary_size=20)
    with pytest.raises(ConfigError, match="more texts"):
        train_tokenizer([], vocabulary_size=100)


def test_texts_are_cut_and_padded() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=200)
    tokens = TextTokenizer(tokenizer, max_tokens=3, special_tokens=True)(
        ["read the line", "", "of a file and return"]
    )
    assert [len(row) for row in tokens] == [3, 0, 3]
    ids_BL, mask_BL = TextTokenizer(tokenizer, max_tokens=3, special_tokens=True).pad(tokens)
    assert ids_BL.shape == (3, 3)
    assert mask_BL.sum(axis=1).tolist() == [3, 0, 3]
    assert ids_BL[1].tolist() == [tokenizer.pad_token_id] * 3
    assert TextTokenizer(tokenizer, max_tokens=3, special_tokens=True).pad([[], []])[0].shape == (2, 1)


def test_a_plain_copy_leaves_the_original_alone() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=200)
    tokenizer(["read"], truncation=True, max_length=1, padding="max_length")
    assert len(plain_tokenizer(tokenizer).encode("read the line").ids) > 1
    assert tokenizer.backend_tokenizer.truncation is not None
