"""A ranker that asks a pretrained model as it comes: a regression on what it makes of prompts.

Nothing of the model is trained, so some hundred problems with recorded answers suffice. The larger the
model, the better it orders, and the longer it takes to read a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dynasor.errors import ConfigError, DataError
from dynasor.ranking.kernel_ridge import KernelRidge, Looks, looks_of
from dynasor.ranking.model_folder import read_card
from dynasor.ranking.prompt_states import StateReader, StateSettings

Floats = NDArray[np.float64]

REGRESSION = "regression.npz"


class ProbeRanker:
    """See `Ranker`. A prompt without a word, and one whose score is no number, get the neutral score.

    Args:
        reader: of the backbone.
        settings: of the reader.
        regression: from what prompts look like to their place among all lengths.
        neutral: the score of a prompt that says nothing.
        name: for tables and logs.
    """

    def __init__(
        self,
        reader: StateReader,
        settings: StateSettings,
        regression: KernelRidge,
        neutral: float = 0.0,
        name: str = "probe",
    ) -> None:
        self.name = name
        self._reader, self._settings = reader, settings
        self._regression, self._neutral = regression, neutral

    @classmethod
    def fit(
        cls, reader: StateReader, settings: StateSettings, seen: Looks, places: Floats
    ) -> tuple[Self, Floats]:
        """A ranker, and the score of each prompt by one that had not learned from it.

        Args:
            reader, settings: that the states were read with.
            seen: prompts, two or more.
            places: (prompts,) where their lengths stand among all, 0 to 1.
        """
        regression, held_out = KernelRidge.fit(seen, places - places.mean())
        return cls(reader, settings, regression, float(np.median(held_out))), held_out

    def score(self, prompts: Sequence[str]) -> Floats:
        """One finite score a prompt, shape `(len(prompts),)`, higher for longer answers."""
        scores = np.full(len(prompts), self._neutral)
        asked = [place for place, prompt in enumerate(prompts) if prompt.strip()]
        if asked:
            texts = [prompts[place] for place in asked]
            scores[asked] = self._regression.predict(looks_of(texts, self._reader.read(texts)))
        scores[~np.isfinite(scores)] = self._neutral
        return scores

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what was learned; returns the card's field `probe`."""
        self._regression.save(folder / REGRESSION)
        return {
            "settings": asdict(self._settings),
            "neutral": self._neutral,
            "backbone_weights": self._reader.weights,
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The ranker of a folder with a card.

        Raises:
            DataError: if card or regression are damaged, or of another backbone.
            MissingExtra: if a package is not there.
        """
        card = read_card(folder)
        try:
            fields = card["probe"]
            settings = StateSettings(**fields["settings"])
            neutral, weights = float(fields["neutral"]), str(fields["backbone_weights"])
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise DataError(
                f"{folder}: its card does not describe a probe ({error}); make it again"
            ) from None
        try:
            regression = KernelRidge.load(folder / REGRESSION)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{folder / REGRESSION}: cannot be read ({error}); make the probe again"
            ) from None
        reader = StateReader(settings)
        if reader.weights != weights:
            raise DataError(
                f"{folder} was made with another {settings.backbone} than the one that is here; "
                "take that one, or make the probe again"
            )
        return cls(reader, settings, regression, neutral, card["name"])
