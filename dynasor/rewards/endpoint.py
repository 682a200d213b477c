"""A reward model behind HTTP: the `/classify` of an OpenAI-compatible server such as vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from dynasor.errors import EngineError
from dynasor.rewards.base import Attempt

IN_FLIGHT = 32
"""Attempts asked about at once."""


class EndpointReward:
    """Probability of the last label that the server's classifier gives an attempt.

    An attempt is sent as chat messages, the text as the assistant's last, to be continued, so that
    the server renders it by the model's own template.

    Args:
        base_url: such as `http://localhost:8001`; `/classify` is added, a trailing `/v1` dropped.
        model: its name on the server, or None for the only one.
        api_key: sent to the server, never logged.
        timeout: seconds that the server may be silent.
    """

    def __init__(
        self, base_url: str, *, model: str | None = None, api_key: str | None = None, timeout: float
    ) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/classify"
        self._model = model
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(timeout=timeout, headers=headers)
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def start(self) -> None:
        """See that the server scores.

        Raises:
            EngineError: if it does not.
        """
        try:
            await self.score([Attempt(({"role": "user", "content": "1 + 1 = ?"},), "2")])
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"no reward model at {self._url}: {error}") from error

    async def score(self, attempts: Sequence[Attempt]) -> list[float]:
        """What the server says of each attempt."""
        return list(await asyncio.gather(*(self._one(attempt) for attempt in attempts)))

    async def _one(self, attempt: Attempt) -> float:
        body: dict[str, Any] = {} if self._model is None else {"model": self._model}
        if isinstance(attempt.prompt, str):
            body["input"] = attempt.prompt + attempt.text
        else:
            turns = [dict(message) for message in attempt.prompt]
            body["messages"] = [*turns, {"role": "assistant", "content": attempt.text}]
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        async with self._slots:
            response = await self._client.post(self._url, json=body)
        response.raise_for_status()
        return _probability(response.json())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _probability(answer: Any) -> float:
    """The last of `data[0].probs`."""
    try:
        probability = answer["data"][0]["probs"][-1]
    except (KeyError, IndexError, TypeError):
        raise ValueError("the server's answer has no data[0].probs; is it a classifier?") from None
    if isinstance(probability, bool) or not isinstance(probability, int | float):
        raise ValueError(f"data[0].probs must hold numbers, not {probability!r}")
    return float(probability)
