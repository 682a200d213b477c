"""Reproducible sampling on vLLM's CPU backend.

There a seeded request whose prefill is split over two steps kills the engine (CPU generators cannot
be rewound). So a request with a seed runs greedily and this processor adds Gumbel noise that depends
on the seed and the position only: the largest of `logits / T + noise` is an exact sample at
temperature T (Gumbel-max), the same in any batch, after a preemption and in a new process.
"""

from __future__ import annotations

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

SEED = "dynasor_seed"
TEMPERATURE = "dynasor_temperature"
_POSITIONS = 1 << 24  # longest output that keeps one seed's noise apart from the next seed's


class SeededSampling(LogitsProcessor):
    """Adds keyed Gumbel noise to the rows of requests that carry `dynasor_seed`."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        # row -> (seed, temperature, live list of the tokens generated so far)
        self._rows: dict[int, tuple[int, float, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """False: the noise decides which token is largest."""
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
        """Scale and perturb the seeded rows of (rows, vocabulary) logits in place."""
        for row, (seed, temperature, output) in self._rows.items():
            generator = torch.Generator().manual_seed(seed * _POSITIONS + len(output))
            noise = torch.empty(logits.shape[1]).exponential_(generator=generator).log_()
            logits[row] = logits[row] / temperature - noise.to(logits.device, logits.dtype)
        return logits


def _key(parameters: SamplingParams) -> tuple[int, float] | None:
    extra = parameters.extra_args or {}
    if SEED not in extra:
        return None
    return int(extra[SEED]), float(extra[TEMPERATURE])
