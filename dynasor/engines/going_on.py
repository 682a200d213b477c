"""A request that was lost goes on elsewhere: what is left to ask, and how its two parts are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from algorithms.program import Event, Progress, Request

E = TypeVar("E", bound=Event)


def going_on(request: Request, told: Progress) -> Request:
    """What is left of a request after its reader was told so much.

    Where nothing was told it begins again. So does a request with a seed, since the same seed gives
    the same text.
    """
    if not told.tokens or request.sampling.seed is not None:
        return request
    left = max(1, request.sampling.max_tokens - told.tokens)
    sampling = replace(request.sampling, max_tokens=left)
    return replace(request, prefix=request.prefix + told.text, sampling=sampling)


def joined(kept: Progress, event: E) -> E:
    """An event of a request that went on after `kept`; the event itself if nothing was kept."""
    if not kept.tokens:
        return event
    return replace(
        event,
        text=kept.text + event.text,
        tokens=kept.tokens + event.tokens,
        confidence=_together(kept.confidence, event.confidence),
        logprobs=_together(kept.logprobs, event.logprobs),
        scored=[*kept.scored, *event.scored],
    )


def _together(
    first: Sequence[float] | None, second: Sequence[float] | None
) -> Sequence[float] | None:
    """Values of both parts; None where a part has none, for then they would not fit the tokens."""
    return None if first is None or second is None else [*first, *second]
