"""Log-probabilities of output tokens in the forms of OpenAI's two endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from algorithms.program import ScoredToken


def for_chat(scored: Sequence[ScoredToken]) -> dict[str, Any]:
    """`logprobs` of a chat choice."""
    content = [
        {
            **_entry(token.text, token.logprob),
            "top_logprobs": [_entry(text, value) for text, value in token.alternatives],
        }
        for token in scored
    ]
    return {"content": content, "refusal": None}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    known = text.encode("utf-8", "surrogatepass")
    return {"token": text, "logprob": _finite(logprob), "bytes": list(known)}


def for_text(scored: Sequence[ScoredToken], offset: int) -> dict[str, Any]:
    """`logprobs` of a text choice.

    Args:
        scored: the tokens.
        offset: where the first one begins in the whole text, characters.
    """
    offsets = []
    for token in scored:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in scored],
        "token_logprobs": [_finite(token.logprob) for token in scored],
        "top_logprobs": [
            {text: _finite(value) for text, value in token.alternatives} for token in scored
        ],
        "text_offset": offsets,
    }


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what is all but impossible."""
    return max(logprob, -9999.0)
