"""The starter models' tokenizer: the first 4,096 merges of OpenAI CLIP's byte-pair encoding."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.files import write_text

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MERGES = 4096
CONTEXT_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
VOCAB_SIZE = 2 * 256 + MERGES + 2


def merges() -> list[tuple[str, str]]:
    """The first `MERGES` merges of open_clip's list, most frequent first."""
    packed = files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]
    pairs = [line.split() for line in lines]
    return [(left, right) for left, right in pairs]


def vocabulary(pairs: list[tuple[str, str]]) -> dict[str, int]:
    """Map token to id: bytes, bytes at the end of a word, merges in order, start and end of text."""
    from open_clip.tokenizer import bytes_to_unicode

    characters = list(bytes_to_unicode().values())
    tokens = characters + [character + "</w>" for character in characters]
    tokens += [left + right for left, right in pairs]
    return {token: index for index, token in enumerate([*tokens, START, END])}


def write_tokenizer(folder: Path) -> None:
    """Write the files that transformers, diffusers and open_clip's `local-dir:` read."""
    pairs = merges()
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT_LENGTH,
        "do_lower_case": True,
        **special,
    }
    write_text(folder / "vocab.json", json.dumps(vocabulary(pairs), ensure_ascii=False))
    lines = [" ".join(pair) for pair in pairs]
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *lines]) + "\n")
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer from `folder`; writes it first if missing."""
    from transformers import CLIPTokenizer

    if not (folder / "vocab.json").exists():
        write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)
