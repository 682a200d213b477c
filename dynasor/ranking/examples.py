"""What a ranker learns from: prompts with the length of their answers.

A data file is JSON Lines, one example a line, with the fields of `LengthExample`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthExample:
    """One prompt and how long its answers were.

    Attributes:
        prompt: the text that was asked, with what came before it in the conversation.
        tokens: output tokens of the answer; the mean where a prompt has several.
        conversation: examples of one conversation, or of one question, stay in one split.
        samples: answers that `tokens` is the mean of.
        spread: standard deviation of the logarithm of their tokens; None for one answer.
        cut: share of the answers that a limit ended, so that `tokens` is a lower bound of theirs.
        turn: questions that came before it in the conversation.
    """

    prompt: str
    tokens: float
    conversation: str
    samples: int = 1
    spread: float | None = None
    cut: float = 0.0
    turn: int = 0
