"""What each key may still do now: requests and tokens a minute, queries at once."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from serving.api_errors import ApiError
from serving.keys import Key

MINUTE = 60.0


class Bucket:
    """A token bucket: fills at a rate, holds a minute's worth, and may fall into debt.

    Args:
        per_minute: rate.
        clock: seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = per_minute / MINUTE
        self._most = max(per_minute, 1.0)
        self._level = self._most
        self._clock = clock
        self._then = clock()

    def wait(self, amount: float) -> float:
        """Seconds until so much is there; 0 if it is."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._then) * self._rate)
        self._then = now
        return max(0.0, (min(amount, self._most) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take it, whether it is there or not."""
        self._level -= amount


class KeyUse:
    """What one key has used.

    Args:
        key: with its limits.
        clock: seconds.
    """

    def __init__(self, key: Key, clock: Callable[[], float] = monotonic) -> None:
        self.key = key
        self.running = 0
        self._requests = self._tokens = None
        if key.requests_per_minute is not None:
            self._requests = Bucket(key.requests_per_minute, clock)
        if key.tokens_per_minute is not None:
            self._tokens = Bucket(key.tokens_per_minute, clock)

    def enter(self) -> None:
        """One more query.

        Raises:
            ApiError: 429 with the time to wait.
        """
        key = self.key
        if key.concurrent is not None and self.running >= key.concurrent:
            raise _too_much(f"{key.concurrent} queries at once", 1.0)
        if self._tokens is not None and (wait := self._tokens.wait(1)):
            raise _too_much(f"{key.tokens_per_minute:g} tokens a minute", wait)
        if self._requests is not None:
            if wait := self._requests.wait(1):
                raise _too_much(f"{key.requests_per_minute:g} requests a minute", wait)
            self._requests.take(1)
        self.running += 1

    def leave(self) -> None:
        """It has ended."""
        self.running -= 1

    def spend(self, tokens: int) -> None:
        """Tokens of a query, prompt and output; known only afterwards, so they may be too many."""
        if self._tokens is not None:
            self._tokens.take(tokens)


def _too_much(limit: str, wait: float) -> ApiError:
    return ApiError(
        429, f"this key is limited to {limit}", code="rate_limit_exceeded", retry_after=wait
    )
