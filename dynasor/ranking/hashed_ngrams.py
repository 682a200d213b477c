"""Words and pieces of words of a text as places in a table of fixed size: no vocabulary to keep.

Feature hashing (Weinberger et al., 2009) of words, pairs of words, the words at both ends, and
sequences of 3 to 5 bytes, each weighed by 1 + ln(count).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.prompt_text import split_question

BITS = 18
SIZE = 1 << BITS
"""Places of words, and again as many of sequences of bytes."""
MOST_WORDS = 400
MOST_BYTES = 1_500
SEEN_CHARACTERS = 6_000
"""Of a longer question only so many first and last characters are seen, half of each."""
_ENDS = 4
_TOKEN = re.compile(r"\w+|[^\w\s]")
_PRIME = np.uint32(16777619)
_SPREAD = np.uint32(2654435761)
_SHIFT = np.uint32(32 - BITS)


class Hashed(NamedTuple):
    """Places of a text, each once, ascending, and their weights; two parts, each of length 1.

    Attributes:
        places: (count,) int32, words below `SIZE`, bytes from `SIZE` to `2 * SIZE`.
        weights: (count,) float32.
    """

    places: NDArray[np.int32]
    weights: NDArray[np.float32]


def hash_text(text: str) -> Hashed:
    """The places of a text; of a long one those of its two ends.

    The weights of words have length 1, and so have those of bytes.
    """
    lower = text.lower()
    words = _count(_word_hashes(lower))
    pieces = _count(_byte_hashes(lower))
    return Hashed(
        np.concatenate([words.places, pieces.places + SIZE]),
        np.concatenate([words.weights, pieces.weights]),
    )


def hash_question(prompt: str) -> Hashed:
    """The places of the question of a prompt, of a long one of its two ends."""
    question = split_question(prompt)[1]
    if len(question) > SEEN_CHARACTERS:
        half = SEEN_CHARACTERS // 2
        question = f"{question[:half]}\n{question[-half:]}"
    return hash_text(question)


def _word_hashes(text: str) -> NDArray[np.uint32]:
    words: Sequence[str] = _TOKEN.findall(text)
    if len(words) > MOST_WORDS:
        half = MOST_WORDS // 2
        words = [*words[:half], *words[-half:]]
    one = np.fromiter((zlib.crc32(word.encode("utf-8", "replace")) for word in words), np.uint32)
    pairs = (one[:-1] * _PRIME) ^ one[1:]
    positions = np.arange(1, _ENDS + 1, dtype=np.uint32)
    head = one[:_ENDS] ^ (positions[: len(one)] * _SPREAD)
    tail = one[-_ENDS:] ^ (positions[-len(one) :][:_ENDS] * _PRIME) if len(one) else one
    return np.concatenate([one, pairs, head, tail])


def _byte_hashes(text: str) -> NDArray[np.uint32]:
    raw = " ".join(text.split())
    data = f" {raw} ".encode("utf-8", "replace")
    if len(data) > MOST_BYTES:
        data = data[: MOST_BYTES * 2 // 3] + data[-MOST_BYTES // 3 :]
    codes = np.frombuffer(data, np.uint8).astype(np.uint32) + np.uint32(1)
    rolling, found = codes, []
    for length in range(2, 6):
        rolling = rolling[:-1] * _PRIME + codes[length - 1 :] * np.uint32(length * 2 + 1)
        if length > 2:
            found.append(rolling ^ np.uint32(length * 0x9E3779B1 & 0xFFFFFFFF))
    return np.concatenate(found)


def _count(hashes: NDArray[np.uint32]) -> Hashed:
    places, counts = np.unique((hashes * _SPREAD) >> _SHIFT, return_counts=True)
    weights = (1 + np.log(counts)).astype(np.float32)
    length = np.sqrt((weights**2).sum())
    return Hashed(places.astype(np.int32), weights / max(length, np.float32(1)))
