"""A tokenizer that needs no file. In: sentences. Out: fixed-length rows of hashed word numbers.

Words are hashed (CRC-32) into a fixed number of rows of the embedding, so every sentence in any language has tokens and
nothing has to be downloaded or trained before the model.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

N_ROWS = 1024
MAX_WORDS = 16


def tokenize(sentences: Sequence[str]) -> np.ndarray:
    """Turn sentences into (B, MAX_WORDS) int64 tokens in [1, N_ROWS); 0 is padding.

    Case and punctuation do not matter; words beyond MAX_WORDS are dropped; an empty sentence is one "no words" token.
    """
    tokens = np.zeros((len(sentences), MAX_WORDS), np.int64)
    for row, sentence in enumerate(sentences):
        words = re.findall(r"\w+", sentence.lower())[:MAX_WORDS] or [""]
        tokens[row, : len(words)] = [zlib.crc32(word.encode()) % (N_ROWS - 1) + 1 for word in words]
    return tokens
