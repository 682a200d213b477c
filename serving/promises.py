"""What was promised to the server's queries: which setting each gets, and whether the promises hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from time import monotonic

from algorithms.program import Program
from dynasor.config import Config
from dynasor.errors import ConfigError
from dynasor.runtime import Outcome
from dynasor.slo.calibration_set import CalibrationSet, ClassCalibration
from dynasor.slo.class_status import Status
from dynasor.slo.class_watch import ClassWatch
from dynasor.slo.kept_evidence import KeptEvidence
from dynasor.slo.load_control import Pace
from dynasor.slo.promise import ClassSettings, QueryClass
from dynasor.slo.rungs import FULL, Rung
from dynasor.slo.traits import Traits
from serving.api_errors import ApiError
from serving.reasoning_plan import Plan

logger = logging.getLogger(__name__)


class Promises:
    """All classes of a server.

    Args:
        config: of the server; its `[slo]` says what is promised.
        calibration: what `dynasor tune` learned, or None.
        kept: what an earlier server knew of its classes, or None.
        before: the promises that these replace while queries run, or None; what they know is kept where
            it is still about the same.
        clock: seconds.
        random: picks the queries that are audited.

    Raises:
        ConfigError: if promise or settings of a class contradict the calibration or the server's limits.
    """

    def __init__(
        self,
        config: Config,
        calibration: CalibrationSet | None,
        *,
        kept: KeptEvidence | None = None,
        before: Promises | None = None,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self.calibration = calibration
        self.pace: Pace = Pace(clock) if before is None else before.pace
        known = {} if calibration is None else calibration.classes
        if calibration is not None:
            for name, promised in config.slo.classes.items():
                _check(name, promised, known.get(name), config.slo.calibration or "the calibration")
        self.classes: Mapping[str, ClassWatch] = {
            name: _class_watch(name, config, known.get(name), self.pace, random or Random())
            for name in config.slo.classes
        }
        self._about = {name: _about(name, config, known.get(name)) for name in self.classes}
        self._go_on(kept if before is None else before.kept())

    def kept(self) -> KeptEvidence:
        """What is known of the classes, for promises that go on with it."""
        return KeptEvidence(
            classes={name: each.kept(self._about[name]) for name, each in self.classes.items()}
        )

    def _go_on(self, kept: KeptEvidence | None) -> None:
        for name, each in ({} if kept is None else kept.classes).items():
            watch = self.classes.get(name)
            if watch is None:
                continue
            watch.spent_before(each.day, each.spent)
            if each.about == self._about[name]:
                watch.go_on(each)
            else:
                logger.info("class %s has changed, or its program: it is watched anew", name)

    @property
    def overloaded(self) -> bool:
        """Whether queries are inside, and another one of some class would get less or be refused."""
        return self.pace.inside > 0 and any(watch.overloaded for watch in self.classes.values())

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in words."""
        return [
            f"{name}: {alarm}; served with {watch.setting}"
            for name, watch in self.classes.items()
            for alarm in watch.alarms
        ]

    def admit(self, plan: Plan) -> Plan:
        """The plan with the setting of its class.

        Raises:
            ApiError: 429 if the promise to its class would not be kept, or its day's tokens are spent.
        """
        watch = self.classes.get(plan.promise or "")
        if watch is None:
            return plan
        admission = watch.admit()
        if (refusal := admission.refusal) is not None:
            raise ApiError(429, refusal.why, code=refusal.code, retry_after=refusal.wait)
        plan = replace(plan, admission=admission)
        rung = admission.setting
        if rung is None:
            return plan
        return plan.with_setting(rung.rule, rung.samples, rung.wave)

    def begun(self, plan: Plan) -> float:
        """A query begins; its expected work, tokens."""
        work = plan.admission.work if plan.admission else self.pace.expected(_kind(plan))
        self.pace.enter(work)
        if plan.admission is not None:
            plan.admission.of.begun(plan.admission)
        return work

    def ended(
        self, plan: Plan, work: float, program: Program, outcome: Outcome | None, tokens: int
    ) -> None:
        """A query has ended after so many output tokens; no outcome: it was left, or lost its engine."""
        if plan.admission is not None:
            plan.admission.of.spend(tokens)
        ended = outcome is not None and outcome.reason != "failed"
        self.pace.leave(work, ended=ended)
        if outcome is None or not ended:
            if plan.admission is not None:
                plan.admission.of.left(plan.admission)
            return
        self.pace.learn(_kind(plan), outcome.bill.output)
        if plan.admission is not None:
            plan.admission.of.ended(
                plan.admission,
                outcome.seconds,
                outcome.bill.output,
                _traits(program, outcome),
                at_deadline=outcome.reason == "deadline",
            )

    def statuses(self) -> dict[str, Status]:
        """How each class does."""
        return {name: watch.status() for name, watch in self.classes.items()}


def load_calibration(config: Config) -> CalibrationSet | None:
    """The calibration that the configuration names.

    Raises:
        DataError: if it cannot be read.
    """
    path = config.slo.calibration
    return None if path is None else CalibrationSet.load(Path(path))


def _check(
    name: str, promised: QueryClass, calibration: ClassCalibration | None, file: str
) -> None:
    """See that what was certified of a class is what is promised to it now."""
    if promised.epsilon is None:
        return
    again = "run `dynasor tune` for what is promised now"
    if calibration is None:
        raise ConfigError(f"slo.classes.{name} is not in {file}: {again}")
    if (
        (calibration.loss, calibration.guarantee) != (promised.loss, promised.guarantee)
        or calibration.epsilon > promised.epsilon
        or calibration.delta > promised.risk
    ):
        raise ConfigError(
            f"slo.classes.{name} promises epsilon = {promised.epsilon:g}, delta = {promised.risk:g}, "
            f"loss = {promised.loss!r}, guarantee = {promised.guarantee!r}, but {file} certifies "
            f"epsilon = {calibration.epsilon:g}, delta = {calibration.delta:g}, "
            f"loss = {calibration.loss!r}, guarantee = {calibration.guarantee!r}: {again}"
        )


def _class_watch(
    name: str, config: Config, calibration: ClassCalibration | None, pace: Pace, random: Random
) -> ClassWatch:
    promised = config.slo.classes[name]
    full = Rung(FULL, config.algorithm.samples, config.allocator.wave)
    base = None
    if promised.settings != ClassSettings():
        base = Rung(
            promised.settings.rule or config.allocator.rule,
            promised.settings.samples or full.samples,
            promised.settings.wave or full.wave,
        )
    try:
        watch = ClassWatch(
            name,
            promised,
            base,
            full,
            calibration,
            config=config.slo.watch,
            audit=config.slo.audit,
            planned=config.slo.planned_rate(name),
            pace=pace,
            random=random,
        )
    except ValueError as error:
        raise ConfigError(f"slo.classes.{name}.settings: {error}") from None
    if watch.most_samples > config.server.max_samples:
        raise ConfigError(
            f"slo.classes.{name}: {watch.most_samples} samples are more than "
            f"server.max_samples = {config.server.max_samples}"
        )
    return watch


def _about(name: str, config: Config, calibration: ClassCalibration | None) -> str:
    """Digest of all that evidence of a class is about: its queries, promise, calibration and program."""
    slo, names = config.slo, list(config.slo.classes)
    earlier = names[: names.index(name) + 1]  # a query is of the first class that holds it
    parts = [
        [slo.classes[each].model_dump(include={"model", "effort", "metadata"}) for each in earlier],
        slo.classes[name].model_dump(
            include={"loss", "epsilon", "guarantee", "delta", "deadline", "settings"}
        ),
        slo.watch.model_dump(include={"risk", "period", "fallback"}),
        None if calibration is None else calibration.model_dump(mode="json"),
        config.algorithm.model_dump(mode="json"),
        config.allocator.model_dump(mode="json"),
        config.engine.model,
    ]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kind(plan: Plan) -> str:
    """Queries that cost about the same."""
    if plan.admission is not None and plan.admission.base:
        return f"class {plan.admission.of.name}"
    return f"{plan.algorithm} {plan.rule} {plan.samples}"


def _traits(program: Program, outcome: Outcome) -> Traits | None:
    """What is compared with the calibration; None of a query that did not end by its rule."""
    votes = program.votes()
    if outcome.reason not in ("certain", "hopeless", "complete") or outcome.failed or not votes.n:
        return None
    return Traits(
        certainty=outcome.certainty.value,
        agreement=votes.top_two()[0] / votes.n,
        samples=votes.n,
        sample_tokens=votes.total_tokens / votes.n,
    )
