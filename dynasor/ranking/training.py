"""Training of a learned ranker: lists of prompts, a loss of their order, early stopping by held-out tau.

The state is written often and at once, so that a run that was killed goes on to the same result.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dynasor.errors import ConfigError, DataError
from dynasor.ranking.encoder import EncoderRanker, LengthEncoder
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.losses import LOSSES, Lengths, Loss, make_loss
from dynasor.ranking.metrics import kendall_tau
from dynasor.ranking.prompt_window import Batch
from dynasor.ranking.training_lists import TrainingLists

CHECKPOINT_SECONDS = 60.0
WARM_UP_SHARE = 0.06
HEAD_RATE = 1e-3
LAYER_DECAY = 0.8
WEIGHT_DECAY = 0.01
GRADIENT_LIMIT = 1.0
AVERAGE_STEPS = 100
"""The weights that are judged and kept are a running average over about so many steps."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How to train.

    Attributes:
        loss: one of `LOSSES`.
        epochs: passes over the training data, unless time or patience end it.
        minutes: of training; the learning rate has fallen to zero by then.
        list_size: prompts a list, which is a batch.
        rate: learning rate of the uppermost layer; each one below has `LAYER_DECAY` of that above.
        checks: how often an epoch the held-out tau is taken.
        patience: checks without a better tau after which training ends.
        seed: of the head's weights, the order of the data and dropout.
    """

    loss: str = "classification"
    epochs: float = 2.0
    minutes: float = 40.0
    list_size: int = 32
    rate: float = 3e-4
    checks: int = 4
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"loss {self.loss!r} is unknown; there are {', '.join(LOSSES)}")
        for name, least in (("list_size", 2), ("checks", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number from {least}, not {value!r}")
        for name in ("epochs", "minutes", "rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, not {value!r}")


class Check(NamedTuple):
    """Where training stands: steps and seconds so far, mean loss since the last check, held-out tau."""

    step: int
    seconds: float
    loss: float
    tau: float


class Training:
    """A run of training, from nothing or from where a killed one stood.

    Args:
        ranker: an encoder with a new head, and what cuts prompts for it; is trained in place.
        lists: what it learns from.
        held_out: examples that are kept from training, for its tau.
        plan: how to train.
        checkpoint: file of the state.

    Raises:
        DataError: if the checkpoint is damaged.
    """

    def __init__(
        self,
        ranker: EncoderRanker,
        lists: TrainingLists,
        held_out: Sequence[LengthExample],
        plan: TrainingPlan,
        checkpoint: Path,
    ) -> None:
        self._ranker, self._lists, self._plan = ranker, lists, plan
        self._checkpoint = checkpoint
        self._prompts = [example.prompt for example in held_out]
        self._tokens = np.array([example.tokens for example in held_out])
        self._cut = np.array([example.cut > 0 for example in held_out])
        self._loss: Loss = make_loss(plan.loss, lists.log_tokens)
        self._total = max(1, round(plan.epochs * len(lists)))
        self._every = max(1, len(lists) // plan.checks)
        model = ranker.model
        self._tuned = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            _groups(model, plan.rate), betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
        )
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._average = [p.detach().clone() for p in self._tuned]
        self._best: list[Tensor] = []
        self._losses: list[float] = []
        self._stopped = False
        self.step, self.seconds = 0, 0.0
        self.checks: list[Check] = []
        torch.manual_seed(plan.seed)
        if checkpoint.exists():
            self._resume()

    @property
    def device(self) -> str:
        """Where it trains, such as `cpu`."""
        return str(self._tuned[0].device)

    @property
    def progress(self) -> float:
        """The share of the run that is done, 0 to 1, by steps or by time, whichever ends it."""
        by_time = self.seconds / (60 * self._plan.minutes)
        return min(1.0, max(self.step / self._total, by_time))

    @property
    def best(self) -> Check | None:
        """The check with the highest tau."""
        return max(self.checks, key=lambda check: check.tau, default=None)

    @property
    def finished(self) -> bool:
        """Whether steps, time or patience have run out."""
        since = 0
        if self.best is not None:
            since = len(self.checks) - 1 - self.checks.index(self.best)
        return self.progress >= 1 or since >= self._plan.patience

    def stop(self) -> None:
        """Let `run` end after the step that it is at; may be called by a signal handler."""
        self._stopped = True

    def run(self, observe: Callable[[float, float], None] = lambda progress, loss: None) -> None:
        """Train until finished or stopped; the model then has the best weights so far.

        Args:
            observe: told progress and the last loss after each step.

        Raises:
            DataError: if the loss is no number any more, or the state cannot be written.
        """
        saved = self.seconds
        batches = self._batches()
        self._ranker.model.train()
        while not self.finished and not self._stopped:
            began = time.monotonic()
            loss = self._learn(*next(batches))
            self.seconds += time.monotonic() - began
            check = self.step % self._every == 0 or self.progress >= 1
            if check:
                self._check()
            if check or self.seconds - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = self.seconds
            observe(self.progress, loss)
        if self._stopped and not self.finished and self._losses:
            self._save()
            self._check()
        self._use(self._best)
        self._ranker.model.eval()

    def _batches(self) -> Iterator[tuple[Batch, Lengths]]:
        epoch, done = divmod(self.step, len(self._lists))
        yield from self._lists.epoch(epoch, done)
        for number in itertools.count(epoch + 1):
            yield from self._lists.epoch(number)

    def _learn(self, batch: Batch, lengths: Lengths) -> float:
        share = _rate_share(self.progress)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        outputs = self._ranker.model(batch).unsqueeze(0)
        loss = self._loss(outputs, Lengths(*(field.to(outputs.device) for field in lengths)))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(
                f"the loss is {value} after {self.step} steps; lower --rate, and train with --fresh"
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._tuned, GRADIENT_LIMIT)
        self._optimizer.step()
        self.step += 1
        self._losses.append(value)
        # The average of few steps is that of all of them: it must not remember the random head.
        share = min(1 - 1 / AVERAGE_STEPS, (1 + self.step) / (10 + self.step))
        for average, weight in zip(self._average, self._tuned, strict=True):
            average.lerp_(weight.detach(), 1 - share)
        return value

    def _check(self) -> None:
        current = [p.detach().clone() for p in self._tuned]
        self._use(self._average)
        self._ranker.model.eval()
        tau = kendall_tau(self._ranker.score(self._prompts), self._tokens, self._cut)
        best = self.best
        if best is None or tau > best.tau:
            self._best = [p.detach().clone() for p in self._tuned]
        loss = sum(self._losses) / len(self._losses)
        self.checks.append(Check(self.step, round(self.seconds, 1), loss, tau))
        self._losses.clear()
        self._use(current)
        self._ranker.model.train()

    @torch.no_grad()
    def _use(self, weights: Sequence[Tensor]) -> None:
        for weight, value in zip(self._tuned, weights, strict=True):
            weight.copy_(value)

    def _save(self) -> None:
        state = {
            "weights": [p.detach() for p in self._tuned],
            "average": self._average,
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "losses": self._losses,
            "checks": [tuple(check) for check in self.checks],
            "step": self.step,
            "seconds": self.seconds,
        }
        new = self._checkpoint.with_suffix(".new")
        try:
            torch.save(state, new)
            new.replace(self._checkpoint)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self._checkpoint} cannot be written ({error}); free space") from None

    def _resume(self) -> None:
        try:
            state = torch.load(self._checkpoint, weights_only=True, map_location=self.device)
            self._use(state["weights"])
            self._average, self._best = state["average"], state["best"]
            self._optimizer.load_state_dict(state["optimizer"])
            self._losses = state["losses"]
            self.checks = [Check(*check) for check in state["checks"]]
            self.step, self.seconds = state["step"], state["seconds"]
            torch.set_rng_state(state["random"].cpu())
        # Damaged archives raise errors of many types in torch and in zipfile.
        except Exception as error:
            raise DataError(
                f"{self._checkpoint} is damaged ({type(error).__name__}); start anew with --fresh"
            ) from None


def _groups(model: LengthEncoder, rate: float) -> list[dict[str, Any]]:
    """Parameters by learning rate: the head, then the tuned layers from the top down."""
    groups: list[dict[str, Any]] = [
        {"params": [*model.mix.parameters(), *model.out.parameters()], "lr": HEAD_RATE}
    ]
    for below, layer in enumerate(reversed(model.tuned_layers)):
        groups.append({"params": list(layer.parameters()), "lr": rate * LAYER_DECAY**below})
    return groups


def _rate_share(progress: float) -> float:
    """The share of the full learning rate: it rises in the warm-up, then falls in a line to zero."""
    return min(1.0, (progress + 1e-4) / WARM_UP_SHARE) * (1 - progress)
