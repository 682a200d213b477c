"""Probes of the prompts of recorded questions, by the backbone that --backbone names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynasor.ranking.examples import LengthExample
from dynasor.ranking.kernel_ridge import looks_of
from dynasor.ranking.probe import ProbeRanker
from dynasor.ranking.prompt_states import StateReader, StateSettings
from dynasor.ranking.train_probe import typical_places


class Prober:
    """Makes probes by the backbone and the pooling that are asked for; each prompt is read once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._settings = StateSettings(options.backbone, options.pooling)
        self._reader: _KeepingReader | None = None  # loading takes a while, and not all ask

    def fit(self, examples: Sequence[LengthExample]) -> tuple[ProbeRanker, NDArray[np.float64]]:
        """A probe, and the score of each prompt by one that had not learned from it."""
        reader = self._reader = self._reader or _KeepingReader(self._settings)
        prompts = [each.prompt for each in examples]
        seen = looks_of(prompts, reader.read(prompts))
        return ProbeRanker.fit(reader, self._settings, seen, typical_places(examples))


class _KeepingReader(StateReader):
    def __init__(self, settings: StateSettings) -> None:
        super().__init__(settings)
        self._read: dict[str, NDArray[np.float16]] = {}

    def read(self, prompts: Sequence[str]) -> NDArray[np.float16]:
        new = list(dict.fromkeys(prompt for prompt in prompts if prompt not in self._read))
        if new:
            self._read |= zip(new, super().read(new), strict=True)
        return np.stack([self._read[prompt] for prompt in prompts])
