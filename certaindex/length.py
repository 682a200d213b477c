"""How well a text keeps to the length that was asked for.

Bai et al., "LongWriter: Unleashing 10,000+ Word Generation from Long Context LLMs", 2024: the length
score S_l of LongBench-Write. It falls to 0 at four times the length asked for, and at a third of it.
"""

from __future__ import annotations


def count_words(text: str) -> int:
    """Words, as parts between blanks."""
    return len(text.split())


def length_score(requested: int, delivered: int) -> float:
    """S_l, 0 to 100.

    Args:
        requested: words asked for, 1 or more.
        delivered: words written.
    """
    if requested < 1 or delivered < 0:
        raise ValueError(
            f"requested must be 1 or more and delivered 0 or more, not {requested} and {delivered}"
        )
    if delivered == 0:
        return 0.0
    if delivered > requested:
        return 100 * max(0.0, 1 - (delivered / requested - 1) / 3)
    return 100 * max(0.0, 1 - (requested / delivered - 1) / 2)
