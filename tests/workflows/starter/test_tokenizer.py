"""The tokenizer, compared with open_clip's byte-pair encoder limited to the same merges."""

from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer

from workflows.starter import tokenizer as starter

CAPTIONS = [
    "woman astronaut medium-dark skin tone",
    "Flag: Côte d’Ivoire",
    "keycap 10",
    "Mrs. Claus",
    "it's 3 o'clock",
    "piñata",
    "",
]


@pytest.fixture(scope="module")
def reference() -> SimpleTokenizer:
    """open_clip's tokenizer with its merges and ids replaced by the starter's."""
    tokenizer = SimpleTokenizer(context_length=starter.CONTEXT_LENGTH)
    pairs = starter.merges()
    tokenizer.bpe_ranks = {pair: rank for rank, pair in enumerate(pairs)}
    tokenizer.encoder = starter.vocabulary(pairs)
    tokenizer.cache = {}
    tokenizer.clean_fn = (
        str.lower
    )  # transformers also lowercases, but does not replace curly quotes
    return tokenizer


def test_the_vocabulary_is_bytes_merges_and_two_special_tokens() -> None:
    vocabulary = starter.vocabulary(starter.merges())
    assert len(vocabulary) == starter.VOCAB_SIZE == 4610
    assert vocabulary[starter.END] == 4609


@pytest.mark.parametrize("caption", CAPTIONS)
def test_ids_are_open_clips(caption: str, reference: SimpleTokenizer, tmp_path: Path) -> None:
    tokenizer = starter.load_tokenizer(tmp_path)
    assert tokenizer(caption).input_ids == [4608, *reference.encode(caption), 4609]


def test_every_emoji_name_has_open_clips_ids(reference: SimpleTokenizer, tmp_path: Path) -> None:
    emoji = pytest.importorskip("emoji", reason="the package emoji (extra demo) is not installed")
    names = [entry["en"].strip(":").replace("_", " ") for entry in emoji.EMOJI_DATA.values()]
    ids = starter.load_tokenizer(tmp_path)(names).input_ids
    wrong = [
        name for name, got in zip(names, ids, strict=True) if got[1:-1] != reference.encode(name)
    ]
    assert len(names) > 3000
    assert wrong == []


def test_long_captions_keep_their_end(tmp_path: Path) -> None:
    tokenizer = starter.load_tokenizer(tmp_path)
    ids = tokenizer("heart " * 100, truncation=True).input_ids
    assert len(ids) == starter.CONTEXT_LENGTH
    assert ids[-1] == 4609
