"""One class of queries while it is served: its settings, whether its promise holds, what to do if not.

A class has a base setting, which serves it as long as all is well; bolder certified settings, for
overload; and safer ones, to fall back to after an alarm. A query keeps the setting with which it began,
so that what was certified of each setting holds for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dynasor.slo.audited_loss import AuditedLoss
from dynasor.slo.calibration_set import ClassCalibration
from dynasor.slo.day_budget import DayBudget
from dynasor.slo.drift import DriftWatch, Traits, traits_of
from dynasor.slo.load_control import DEADLINE_SHARE, Choice, LoadControl, Pace, Target
from dynasor.slo.promise import QueryClass
from dynasor.slo.rungs import FULL, Rung, certified_rungs, ladder, place_of
from dynasor.slo.watch_config import WatchConfig

logger = logging.getLogger(__name__)

RECENT = 500
"""Answers over which attainment is counted."""


class Refusal(NamedTuple):
    """Why a query is not served.

    Attributes:
        why: in words, for the client.
        code: short name.
        wait: seconds after which to come again.
    """

    why: str
    code: str
    wait: float


@dataclass(frozen=True, slots=True)
class Admission:
    """How a query of a class is served.

    Attributes:
        of: the class.
        setting: that serves it; None: its own, for the class has none.
        work: expected of it, tokens.
        full_samples: of the full budget, against which losses are.
        base: whether that is the base setting, the only one that is watched.
        round: of the watch that it belongs to.
        choice: of the load control.
        refusal: why the query is refused and seconds after which to come again; None: it is served.
        audit: whether it is to go on to the full budget after its answer.
    """

    of: ClassWatch
    setting: Rung | None
    work: float
    full_samples: int
    base: bool
    round: int
    choice: Choice
    refusal: Refusal | None
    audit: bool


@dataclass(slots=True)
class Status:
    """How a class does.

    Attributes:
        setting: that new queries get when there is no overload.
        alarms: in words, oldest first.
        evidence: of drift by trait, 1 at the alarm; empty where nothing is compared.
        seen: queries compared in this period.
        audited: answers that were audited and differed, and were the same; audits that were dropped.
        bounds: of the share that differs.
        epsilon: most that was promised, or None.
        level: rung of the last query; 0 where there is no overload.
        attained: share of the last answers that met the hardest latency target.
        predicted: share of the queries that came now and would meet it.
        refused: queries, late ones and those beyond the tokens of a day.
    """

    setting: str
    alarms: list[str]
    evidence: dict[str, float]
    seen: int
    audited: dict[str, int]
    bounds: tuple[float, float]
    epsilon: float | None
    level: int
    attained: float
    predicted: float
    refused: int


class ClassWatch:
    """Serves one class.

    Args:
        name: of the class.
        promised: to it.
        base: its setting, or None for that of the calibration.
        full: the full budget where there is no calibration.
        calibration: of the class, or None. With neither a setting nor a calibration queries keep their
            own settings, and only their latency is watched.
        config: of the watch.
        audit: share of the queries that are audited.
        pace: of the server.
        random: picks the audited ones.

    Raises:
        ValueError: if the base setting is none that was certified.
    """

    def __init__(
        self,
        name: str,
        promised: QueryClass,
        base: Rung | None,
        full: Rung,
        calibration: ClassCalibration | None,
        *,
        config: WatchConfig,
        audit: float,
        pace: Pace,
        random: Random,
    ) -> None:
        self.name = name
        self._promised = promised
        self._config = config
        self._audit = audit
        self._pace = pace
        self._random = random
        self._targets = _targets(promised)
        self._day = DayBudget(promised.tokens_per_day)
        self._has_setting = base is not None or calibration is not None
        self._certified = certified_rungs(calibration, base, full)
        self._full_samples = calibration.full_samples if calibration else full.samples
        self._place = place = place_of(self._certified, calibration, base)
        self.alarms: list[str] = []
        self.refused = self._level = self._round = 0
        self._in_time: deque[bool] = deque(maxlen=RECENT)
        self._drift: DriftWatch | None = None
        if calibration is not None and place == calibration.chosen:
            traits = [traits_of(query) for query in calibration.queries]
            self._drift = DriftWatch(traits, risk=config.risk, period=config.period)
        self._serve(ladder(self._certified[place:]))

    def _serve(self, rungs: Sequence[Rung]) -> None:
        """From now on with the first of these, and with the others under overload."""
        self._ladder = rungs
        works = [rung.work for rung in self._ladder]
        self._control = LoadControl(works, self._targets, self._pace, f"class {self.name}")
        # The risk of all rounds together stays what was stated: 1/2 + 1/4 + ... of it.
        self._loss = AuditedLoss(risk=self._config.risk / 2 ** (self._round + 1))

    @property
    def setting(self) -> Rung:
        """That serves new queries when there is no overload."""
        return self._ladder[0]

    @property
    def most_samples(self) -> int:
        """That a query of the class may take."""
        return max(rung.samples for rung in self._certified)

    @property
    def overloaded(self) -> bool:
        """Whether the last query got a bolder setting, or was refused."""
        return self._level > 0

    def admit(self) -> Admission:
        """Choose the setting of a query that comes now, or refuse it."""
        control = self._control
        choice = control.choose() if self._config.control else control.first()
        self._level = choice.level + (choice.wait is not None)
        refusal = self._refusal(choice)
        if refusal is not None:
            self.refused += 1
        base = choice.level == 0
        audit = base and self._loses and self._random.random() < self._audit
        return Admission(
            of=self,
            setting=self._ladder[choice.level] if self._has_setting else None,
            work=control.work(choice.level),
            full_samples=self._full_samples,
            base=base,
            round=self._round,
            choice=choice,
            refusal=refusal,
            audit=audit,
        )

    def _refusal(self, choice: Choice) -> Refusal | None:
        day = self._day.wait()
        if day is not None:
            return Refusal("the tokens of this day are spent", "day_budget", day)
        if choice.wait is not None:
            late = "the server is too busy to answer in the time that was promised"
            return Refusal(late, "overloaded", choice.wait)
        return None

    @property
    def _loses(self) -> bool:
        """Whether the base setting can give another answer than the full budget."""
        return self._has_setting and self.setting.rule != FULL

    def spend(self, tokens: int) -> None:
        """A query of the class has cost so many output tokens, whatever became of it."""
        self._day.spend(tokens)

    def ended(self, admission: Admission, seconds: float, traits: Traits | None) -> None:
        """A query has its answer, after so long; `traits` where it ended by its rule."""
        if self._targets:
            self._in_time.append(seconds <= max(self._targets).seconds)
        if admission.round != self._round:
            return
        self._control.ended(admission.choice.predicted, seconds)
        if self._drift is None or traits is None or not admission.base:
            return
        alarm = self._drift.see(traits)
        if alarm is not None:
            words = alarm.trait.replace("_", " ")
            self._fall_back(
                f"drift: the {words} of live queries are not those of the calibration, seen after "
                f"{alarm.queries} queries"
            )

    def audited(self, admission: Admission, *, differed: bool | None) -> None:
        """An audit has ended; None: it was dropped."""
        if admission.round != self._round:
            return
        if differed is None:
            self._loss.drop()
            return
        self._loss.count(differed=differed)
        promised = self._promised
        if promised.epsilon is None or promised.loss != "answer":
            return  # that answers differ does not say that accuracy was lost
        if self._loss.exceeds(promised.epsilon):
            low = self._loss.bounds.low
            self._fall_back(
                f"loss: at least {low:.1%} of the answers differ from the full budget's by the audits; "
                f"{promised.epsilon:.1%} was promised"
            )

    def _fall_back(self, what: str) -> None:
        """To a safer setting; after an alarm no bolder one is used, for none is certified any more."""
        wave = self.setting.wave
        self._round += 1
        self._drift = None  # the calibration says how queries end under its own setting only
        self._place = max(0, self._place - 1) if self._config.fallback == "safer" else 0
        rung = self._certified[self._place]
        if rung.rule == FULL:
            rung = rung._replace(
                wave=wave
            )  # it loses nothing at any wave; so answers come no later
        self._serve([rung])
        self.alarms.append(what)
        logger.warning("class %s: %s; from now on: %s", self.name, what, self.setting)

    def status(self) -> Status:
        """How the class does."""
        loss, drift = self._loss, self._drift
        return Status(
            setting=str(self.setting) if self._has_setting else "of each query",
            alarms=list(self.alarms),
            evidence={} if drift is None else drift.evidence,
            seen=0 if drift is None else drift.seen,
            audited={"differed": loss.differed, "same": loss.same, "dropped": loss.dropped},
            bounds=(loss.bounds.low, loss.bounds.high),
            epsilon=self._promised.epsilon,
            level=self._level,
            attained=sum(self._in_time) / len(self._in_time) if self._in_time else 1.0,
            predicted=self._control.attained(0),
            refused=self.refused,
        )


def _targets(promised: QueryClass) -> list[Target]:
    targets = [Target(percentile / 100, seconds) for percentile, seconds in promised.targets]
    if promised.deadline is not None:
        targets.append(Target(DEADLINE_SHARE, promised.deadline))
    return targets
