"""Will the batch still fit in the KV cache when its requests have grown?

vLLM admits a request when its prompt fits now. While all requests grow, the cache then overflows, and
what was computed is thrown away and computed again. Looking ahead to the moments at which requests are
expected to end shows the peak to come ("Past-Future Scheduler", Gong et al., ASPLOS 2025).
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST_LEFT = 0.25
"""Expected rest of a request that is longer than usual already, as a share of the usual length."""


def expected_left(generated: int, typical: float, most: float) -> float:
    """Tokens that a request will still generate, by what requests typically take.

    Args:
        generated: output tokens so far.
        typical: mean output tokens of finished requests.
        most: the largest number that it may still generate; inf where that is not known.
    """
    return min(max(typical - generated, LEAST_LEFT * typical), most)


def peak_tokens(used: float, running: Sequence[tuple[float, float]]) -> float:
    """Largest number of KV tokens in use until the last of the running requests has ended.

    Args:
        used: tokens in use now, shared ones counted once.
        running: of each request (tokens that its end sets free of those it holds now, tokens that it
            will still generate).
    """
    left = len(running)
    peak = used
    for own, growth in sorted(running, key=lambda request: request[1]):
        # Until this one ends, all that are left grow by as much as it does.
        peak = max(peak, used + left * growth)
        used -= own
        left -= 1
    return peak
