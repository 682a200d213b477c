"""From a data folder to the folder of a probe.

training/           states of the prompts that were read so far; gone when it is finished
regression.npz      what was learned
calibration.json    what scores say about tokens
card.json           what it is and how good; a folder that has one is complete
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynasor.errors import DataError, RunError
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.kernel_ridge import looks_of
from dynasor.ranking.length_calibration import CALIBRATION, LengthCalibration
from dynasor.ranking.length_quantiles import length_quantiles
from dynasor.ranking.model_folder import CARD, TRAINING, read_card, write_card
from dynasor.ranking.order_metrics import order_metrics
from dynasor.ranking.probe import ProbeRanker
from dynasor.ranking.prompt_states import StateReader, StateSettings
from dynasor.ranking.ranker_data import RankerData
from dynasor.ranking.training_folder import claim_training

MOST = 5_000
"""Examples that a probe learns from; solving for more takes long, and asking it too."""
CHUNK = 32
"""Prompts that are read before they are kept."""
STATES = "states.f16"


def typical_places(examples: Sequence[LengthExample]) -> NDArray[np.float64]:
    """(examples,) where the typical length of each stands among all, 0 to 1.

    Of several answers that is their median, as far as they are log-normal: a mean is that of the few
    that ran away.
    """
    spreads = np.array([example.spread or 0.0 for example in examples])
    tokens = np.array([example.tokens for example in examples])
    cut = np.array([example.cut > 0 for example in examples])
    return length_quantiles(tokens * np.exp(-(spreads**2) / 2), cut)


class ProbeTraining:
    """A probe in the making: begun, or gone on with where it was killed or stopped.

    Args:
        data: what to learn from, of train and held-out examples alike; at most `MOST` at random.
        about: what the card says of the data.
        out: the folder.
        settings: which states of which backbone.
        device: where the backbone computes while it reads, such as `cpu` or `cuda`.
        seed: of the choice of examples.
        fresh: throw an earlier training in this folder away.

    Raises:
        RunError: if the folder holds something else, or cannot be written.
        DataError: if the backbone cannot be read.
    """

    def __init__(
        self,
        data: RankerData,
        about: dict[str, Any],
        out: Path,
        settings: StateSettings,
        *,
        device: str = "cpu",
        seed: int = 0,
        fresh: bool = False,
    ) -> None:
        whole = [*data.train, *data.held_out]
        chosen = np.sort(np.random.default_rng(seed).permutation(len(whole))[:MOST])
        self.examples = [whole[place] for place in chosen.tolist()]
        self._test, self._out, self._settings = data.test, out, settings
        self._about = about | {"train": len(self.examples), "seed": seed}
        self._reader = StateReader(settings, device)
        # States that are kept are of these prompts, in this order, by these weights.
        prompts = json.dumps([each.prompt for each in self.examples]).encode()
        run = {
            "data": self._about,
            "prompts": sha256(prompts).hexdigest(),
            "probe": asdict(settings),
            "weights": self._reader.weights,
        }
        self._kept = claim_training(out, run, fresh=fresh) / STATES

    def read(self, observe: Callable[[int], None]) -> None:
        """Read the prompts that were not read before; what is read is kept whatever happens.

        Args:
            observe: told how many have been read, each time some more are.

        Raises:
            DataError: if the backbone gives states that are no numbers.
            RunError: if the states cannot be written.
        """
        done = len(self._states())
        observe(done)
        for first in range(done, len(self.examples), CHUNK):
            prompts = [each.prompt for each in self.examples[first : first + CHUNK]]
            rows = self._reader.read(prompts)
            if not np.isfinite(rows).all():
                raise DataError(
                    f"backbone {self._settings.backbone!r} gives states that are no numbers; "
                    "choose another"
                )
            try:
                with self._kept.open("r+b" if first else "wb") as file:
                    file.truncate(first * self._row_bytes)  # what a kill has torn
                    file.seek(0, os.SEEK_END)
                    file.write(rows.tobytes())
            except OSError as error:
                raise RunError(
                    f"{self._kept} cannot be written ({error.strerror}); free space"
                ) from None
            observe(first + len(prompts))

    @property
    def _row_bytes(self) -> int:
        return 2 * self._reader.size

    def _states(self) -> NDArray[np.float16]:
        """(read so far, size) whole rows of what was kept."""
        kept = self._kept.read_bytes() if self._kept.exists() else b""
        rows = min(len(kept) // self._row_bytes, len(self.examples))
        size = self._reader.size
        return np.frombuffer(kept, np.float16, rows * size).reshape(rows, size)

    def finish(self) -> dict[str, Any]:
        """Fit, write and judge the ranker, once all is read; returns its card.

        Raises:
            RunError: if the folder cannot be written.
        """
        try:
            return self._finish()
        except OSError as error:
            raise RunError(
                f"{self._out} cannot be written ({error.strerror}); free space"
            ) from None

    def _finish(self) -> dict[str, Any]:
        out, examples = self._out, self.examples
        (out / CARD).unlink(missing_ok=True)
        seen = looks_of([each.prompt for each in examples], self._states())
        places = typical_places(examples)
        ranker, held_out = ProbeRanker.fit(self._reader, self._settings, seen, places)
        LengthCalibration.fit(held_out, examples).save(out / CALIBRATION)
        metrics = {"held_out": order_metrics(held_out, examples)}
        if self._test:
            scores = ranker.score([each.prompt for each in self._test])
            metrics["test"] = order_metrics(scores, self._test)
        about = {
            "probe": ranker.save(out),
            "data": self._about,
            "metrics": metrics,
            "backbone": {"name": self._settings.backbone, "licence": self._reader.licence},
            "licence": "the regression: Apache-2.0, as far as the licence of the backbone allows",
        }
        write_card(out, "probe", out.resolve().name, about)
        shutil.rmtree(out / TRAINING)
        return read_card(out)
