"""Sentences to token numbers. In: the name of a tokenizer, sentences. Out: rows of equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wbvla.vla.text import N_ROWS, tokenize

WORDS = "words"


def make_tokenizer(name: str, length: int, vocabulary: int, pad_token: int) -> Callable[[Sequence[str]], Tensor]:
    """Return a function from B sentences to (B, length) int64 tokens.

    Args:
        name: "words" for the hashed words of wbvla.vla.text (no file needed), else a folder or name that transformers
            knows; released weights need that of facebook/bart-large.
        length: tokens a sentence is padded to; what does not fit is cut off.
        vocabulary, pad_token: of the model's word embeddings, which must be the tokenizer's.
    Raises:
        ValueError: the tokenizer is not on this machine and cannot be fetched, or is not the model's.
    """
    tokenizer = None if name == WORDS else _load(name)
    size, pad = (N_ROWS, 0) if tokenizer is None else (len(tokenizer), tokenizer.pad_token_id)
    if size > vocabulary or pad != pad_token:
        raise ValueError(
            f"tokenizer: {name!r} has {size} tokens and padding {pad}, the model {vocabulary} and {pad_token}; "
            "give the one it was trained with"
        )

    def encode(sentences: Sequence[str]) -> Tensor:
        if tokenizer is None:
            return torch.from_numpy(tokenize(sentences))[:, :length]
        rows = tokenizer(list(sentences), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return rows["input_ids"]

    return encode


def _load(name: str):
    """Return a tokenizer of transformers. Raises ValueError if it is not to be had."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer: {name!r} is not on this machine ({str(error).splitlines()[0]}); "
            "fetch it once, or write the folder that holds it into the checkpoint's config.json (tokenizer, in "
            "LeRobot's tokenizer_name)"
        ) from None
