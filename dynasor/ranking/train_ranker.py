"""From a data folder to the folder of a trained ranker.

training/            what a run that was stopped needs to go on; gone when it is finished
tuned.safetensors    the weights that were trained
calibration.json     what scores say about tokens
learning_curves.*    loss and held-out tau, as a picture and as numbers
card.json            what it is and how good; a folder that has one is complete
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dynasor.errors import RunError
from dynasor.ranking.backbone import load_backbone
from dynasor.ranking.encoder import EncoderRanker, EncoderSettings, build_encoder
from dynasor.ranking.learning_curves import save_learning_curves
from dynasor.ranking.length_calibration import CALIBRATION, LengthCalibration
from dynasor.ranking.losses import outputs_of
from dynasor.ranking.model_folder import CARD, TRAINING, read_card, write_card
from dynasor.ranking.order_metrics import order_metrics
from dynasor.ranking.ranker_data import RankerData
from dynasor.ranking.training import Training, TrainingPlan
from dynasor.ranking.training_folder import claim_training
from dynasor.ranking.training_lists import TrainingLists

CURVES = "learning_curves"
SCALE_PROMPTS = 1_024
"""Prompts that the scale of the features is taken from."""


class RankerTraining:
    """A training in a folder: begun, or gone on with where it was killed or stopped.

    Args:
        data: what to learn from.
        about: what the card says of the data.
        out: the folder.
        settings: what the ranker is built of; its `width` will be that of the plan's loss.
        plan: how to train.
        device: where to train, such as `cpu` or `cuda`.
        fresh: throw an earlier training in this folder away.

    Raises:
        RunError: if the folder holds something else, or cannot be written.
        DataError: if the backbone cannot be read, or the state is damaged.
    """

    def __init__(
        self,
        data: RankerData,
        about: dict[str, Any],
        out: Path,
        settings: EncoderSettings,
        plan: TrainingPlan,
        *,
        device: str = "cpu",
        fresh: bool = False,
    ) -> None:
        self._data, self._out = data, out
        self._about = about | {
            "train": len(data.train),
            "later_turns": sum(example.turn > 0 for example in data.train),
            "held_out": len(data.held_out),
        }
        settings = replace(settings, width=outputs_of(plan.loss))
        self._settings, self._plan = settings, plan
        run = {"data": self._about, "encoder": asdict(settings), "plan": asdict(plan)}
        claim_training(out, run, fresh=fresh)
        torch.manual_seed(plan.seed)
        model, window = build_encoder(settings)
        self.ranker = EncoderRanker(model, window)
        lists = TrainingLists(data.train, window, size=plan.list_size, seed=plan.seed)
        model.to(device).eval()
        first = itertools.islice(lists.epoch(0), math.ceil(SCALE_PROMPTS / plan.list_size))
        model.fit_scale(batch for batch, _ in first)
        self.training = Training(
            self.ranker, lists, data.held_out, plan, out / TRAINING / "state.pt"
        )

    def finish(self) -> dict[str, Any]:
        """Write the ranker with the best weights so far, judge what was written; returns its card."""
        try:
            return self._finish()
        except OSError as error:
            raise RunError(
                f"{self._out} cannot be written ({error.strerror}); free space"
            ) from None

    def _finish(self) -> dict[str, Any]:
        out, data, checks = self._out, self._data, self.training.checks
        (out / CARD).unlink(missing_ok=True)
        ranker = EncoderRanker.restore(out, self.ranker.save(out))
        scores = ranker.score([example.prompt for example in data.held_out])
        ranker.neutral = float(np.median(scores))
        LengthCalibration.fit(scores, data.held_out).save(out / CALIBRATION)
        save_learning_curves(checks, self._plan.loss, out / f"{CURVES}.png")
        curves = [check._asdict() for check in checks]
        (out / f"{CURVES}.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
        metrics = {"held_out": order_metrics(scores, data.held_out)}
        if data.test:
            test_scores = ranker.score([example.prompt for example in data.test])
            metrics["test"] = order_metrics(test_scores, data.test)
        backbone = load_backbone(self._settings.backbone)
        about = {
            "encoder": ranker.save(out),
            "data": self._about,
            "metrics": metrics,
            "backbone": {"name": backbone.name, "licence": backbone.licence},
            "licence": "the tuned weights: Apache-2.0, as far as the licence of the backbone allows",
            "training": {
                **asdict(self._plan),
                "steps": self.training.step,
                "seconds": round(self.training.seconds, 1),
                "finished": self.training.finished,
                "device": self.training.device,
                "threads": torch.get_num_threads(),
            },
        }
        write_card(out, "encoder", out.resolve().name, about)
        if self.training.finished:
            shutil.rmtree(out / TRAINING)
        return read_card(out)
