"""Reproducible sampling on vLLM's CPU backend.

There a seeded request whose prefill is split over two steps kills the engine, for generators on the
CPU cannot be rewound. So a request with a seed runs greedily, and this processor draws its token:
the uniform number that picks it depends on the seed and the position only. It is an exact sample at
the request's temperature, and the same in any batch, after a preemption and in a new process.
"""

from __future__ import annotations

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

SEED = "dynasor_seed"
TEMPERATURE = "dynasor_temperature"
_POSITIONS = 1 << 24  # longest output that keeps one seed's numbers apart from the next seed's
_MASK = (1 << 64) - 1


class SeededSampling(LogitsProcessor):
    """Draws the tokens of requests that carry `dynasor_seed`."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        # row -> (seed, temperature, live list of the tokens generated so far)
        self._rows: dict[int, tuple[int, float, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """False: it decides which token is largest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch: rows are removed, added, moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, parameters, _prompt, output in batch_update.added:
            self._rows.pop(row, None)
            key = _key(parameters)
            if key is not None:
                self._rows[row] = (*key, output)
        for source, target, direction in batch_update.moved:
            moved = self._rows.pop(source, None)
            displaced = self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if direction == MoveDirectionality.SWAP and displaced is not None:
                self._rows[source] = displaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave one token possible in each seeded row of (rows, vocabulary) logits, in place."""
        if not self._rows:
            return logits
        rows = torch.tensor(list(self._rows), device=logits.device)
        keys = self._rows.values()
        temperature = torch.tensor([t for _, t, _ in keys], device=logits.device)
        uniform = torch.tensor(
            [_uniform(seed * _POSITIONS + len(output)) for seed, _, output in keys],
            device=logits.device,
            dtype=torch.float64,
        )
        scaled = logits[rows].float() / temperature[:, None]
        cumulated = scaled.softmax(dim=-1).double().cumsum(dim=-1)
        # The last sum is 1 but for rounding.
        target = uniform[:, None] * cumulated[:, -1:]
        token = torch.searchsorted(cumulated, target, right=True)[:, 0]
        logits[rows] = -torch.inf
        logits[rows, token.clamp_(max=logits.shape[1] - 1)] = 0.0
        return logits


def _uniform(key: int) -> float:
    """A number in [0, 1) that depends on the key only (SplitMix64; Steele et al., 2014)."""
    x = (key * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) >> 11) / (1 << 53)


def _key(parameters: SamplingParams) -> tuple[int, float] | None:
    extra = parameters.extra_args or {}
    if SEED not in extra:
        return None
    return int(extra[SEED]), float(extra[TEMPERATURE])
