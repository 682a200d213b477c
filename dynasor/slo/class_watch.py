"""One class of queries while it is served: its settings, whether its promise holds, what to do if not.

A class has a base setting, which serves it as long as all is well; bolder certified settings, for
overload; and safer ones, to fall back to after an alarm. A query keeps the setting with which it began,
so that what was certified of each setting holds for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random

from dynasor.slo.admission import Admission, Refusal
from dynasor.slo.arrival_order import ArrivalOrder
from dynasor.slo.audited_loss import AuditedLoss
from dynasor.slo.calibration_set import ClassCalibration
from dynasor.slo.class_status import Status
from dynasor.slo.day_budget import DayBudget
from dynasor.slo.kept_evidence import KeptClass, KeptDrift
from dynasor.slo.ladder_drift import LadderDrift
from dynasor.slo.load_control import DEADLINE_SHARE, Choice, LoadControl, Pace, Target
from dynasor.slo.promise import QueryClass
from dynasor.slo.recent_queries import RecentQueries
from dynasor.slo.rungs import FULL, Rung, certified_rungs, ladder, place_of
from dynasor.slo.traits import Traits
from dynasor.slo.watch_config import WatchConfig

logger = logging.getLogger(__name__)


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
        planned: queries a second for which the promise was made, or None.
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
        planned: float | None,
        pace: Pace,
        random: Random,
    ) -> None:
        self.name = name
        self._promised = promised
        self._calibration = calibration
        self._config = config
        self._audit = audit
        self._planned = planned
        self._pace = pace
        self._random = random
        self._targets = _targets(promised)
        self._day = DayBudget(promised.tokens_per_day)
        self._recent = RecentQueries()
        self._has_setting = base is not None or calibration is not None
        self._certified = certified_rungs(calibration, base, full)
        self._full_samples = calibration.full_samples if calibration else full.samples
        self._place = place_of(self._certified, calibration, base)
        self.alarms: list[str] = []
        self.refused = self._level = self._round = 0
        self._serve(ladder(self._certified[self._place :]))

    def _serve(self, rungs: Sequence[Rung]) -> None:
        """From now on with the first of these, and with the others under overload."""
        self._ladder = rungs
        works = [rung.work for rung in rungs]
        self._control = LoadControl(works, self._targets, self._pace, f"class {self.name}")
        # The risk of all rounds together stays what was stated: 1/2 + 1/4 + ... of it.
        self._loss = AuditedLoss(risk=self._config.risk / 2 ** (self._round + 1))
        self._drift = LadderDrift(
            [self._reference(rung) for rung in rungs],
            risk=self._config.risk,
            period=self._config.period,
        )
        self._open = ArrivalOrder[Admission, Traits]()

    def _reference(self, rung: Rung) -> list[Traits]:
        """How calibrated queries ended under a setting; none of one that can lose nothing."""
        if self._calibration is None or self._is_full(rung):
            return []
        return self._calibration.reference(self._certified.index(rung))

    def _is_full(self, rung: Rung) -> bool:
        """Whether a setting is the full budget, which loses nothing at any wave."""
        return rung.rule == FULL and rung.samples == self._full_samples

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
        """Whether a query that came now would get a bolder setting, or be refused."""
        choice = self._choose()
        return choice.level > 0 or choice.wait is not None

    def _choose(self) -> Choice:
        return self._control.choose() if self._config.control else self._control.first()

    def admit(self) -> Admission:
        """Choose the setting of a query that comes now, or refuse it."""
        self._recent.came()
        choice = self._choose()
        self._level = choice.level + (choice.wait is not None)
        refusal = self._refusal(choice)
        if refusal is not None:
            self.refused += 1
        loses = self._has_setting and not self._is_full(self._ladder[choice.level])
        return Admission(
            of=self,
            setting=self._ladder[choice.level] if self._has_setting else None,
            work=self._control.work(choice.level),
            full_samples=self._full_samples,
            base=choice.level == 0,
            round=self._round,
            choice=choice,
            refusal=refusal,
            audit=loses and self._random.random() < self._audit,
        )

    def _refusal(self, choice: Choice) -> Refusal | None:
        day = self._day.wait()
        if day is not None:
            return Refusal("the tokens of this day are spent", "day_budget", day)
        if choice.wait is not None:
            late = "the server is too busy to answer in the time that was promised"
            return Refusal(late, "overloaded", choice.wait)
        return None

    def begun(self, admission: Admission) -> None:
        """A query begins that was admitted."""
        if admission.round == self._round:
            self._open.begin(admission)
            self._control.begun(admission, admission.choice.predicted)

    def left(self, admission: Admission) -> None:
        """A query that has begun will have no answer: its client left, or it failed."""
        self._control.left(admission)
        self._compare(admission, None)

    def spend(self, tokens: int) -> None:
        """A query of the class has cost so many output tokens, whatever became of it."""
        self._day.spend(tokens)

    def ended(
        self,
        admission: Admission,
        seconds: float,
        tokens: int,
        traits: Traits | None,
        *,
        at_deadline: bool = False,
    ) -> None:
        """A query has its answer, after so long and so many output tokens.

        Args:
            admission: how it was served.
            seconds: since it began.
            tokens: output tokens.
            traits: how it ended by its rule; None: something else ended it.
            at_deadline: whether that was its deadline.
        """
        in_time = not self._targets or seconds <= max(self._targets).seconds
        self._recent.answered(in_time=in_time, tokens=tokens, at_deadline=at_deadline)
        if admission.round != self._round:
            return
        self._control.ended(admission, seconds)
        self._compare(admission, traits)

    def _compare(self, admission: Admission, traits: Traits | None) -> None:
        """Compare the queries with the calibration that are due now that this one has ended."""
        for each, live in self._open.end(admission, traits):
            level = each.choice.level
            alarm = self._drift.see(level, live)
            if alarm is not None:
                under = f" under {self._ladder[level]}" if level else ""
                self._fall_back(
                    f"drift: the {alarm.trait.replace('_', ' ')} of live queries are not those of the "
                    f"calibration, seen after {alarm.queries} queries{under}"
                )
                return

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
        self._round += 1
        place = self._safer() if self._config.fallback == "safer" else 0
        self._serve_alone(place, self.setting.wave)
        self.alarms.append(what)
        logger.warning("class %s: %s; from now on: %s", self.name, what, self.setting)

    def _safer(self) -> int:
        """Place of the next safer setting with no narrower wave, which would take more rounds."""
        wave, safer = self.setting.wave, range(self._place - 1, 0, -1)
        return next((place for place in safer if self._certified[place].wave >= wave), 0)

    def _serve_alone(self, place: int, wave: int) -> None:
        """One certified setting; the full budget at a wave that has served, to take no longer."""
        self._place = place
        rung = self._certified[place]
        self._serve([rung._replace(wave=wave) if self._is_full(rung) else rung])

    def kept(self, about: str) -> KeptClass:
        """What another watch needs to go on with all that this one knows.

        Args:
            about: digest of what it is about.
        """
        day, spent = self._day.spent
        loss = self._loss
        return KeptClass(
            about=about,
            alarms=tuple(self.alarms),
            round=self._round,
            place=self._place,
            wave=self.setting.wave,
            differed=loss.differed,
            same=loss.same,
            dropped=loss.dropped,
            drift=tuple(
                KeptDrift(level=level, live=begun.live, capital=begun.capital)
                for level, begun in self._drift.begun().items()
            ),
            day=day,
            spent=spent,
        )

    def go_on(self, kept: KeptClass) -> None:
        """Go on with what a watch of the same class, calibration and program knew.

        Raises:
            ValueError: if it cannot be of such a watch.
        """
        if kept.place >= len(self._certified):
            raise ValueError(f"place {kept.place}: there are {len(self._certified)} settings")
        if kept.round:
            self._round = kept.round
            self._serve_alone(kept.place, kept.wave)
        self.alarms = list(kept.alarms)
        self._loss.go_on(differed=kept.differed, same=kept.same, dropped=kept.dropped)
        self._drift.go_on({each.level: each.begun for each in kept.drift})

    def spent_before(self, day: int, spent: int) -> None:
        """Count output tokens of a day that were spent before this watch began."""
        self._day.go_on(day, spent)

    def status(self) -> Status:
        """How the class does."""
        loss, recent = self._loss, self._recent
        return Status(
            setting=str(self.setting) if self._has_setting else "of each query",
            alarms=list(self.alarms),
            evidence=self._drift.evidence,
            seen=self._drift.seen,
            audited={"differed": loss.differed, "same": loss.same, "dropped": loss.dropped},
            bounds=(loss.bounds.low, loss.bounds.high),
            epsilon=self._promised.epsilon,
            level=self._level,
            attained=recent.attained,
            predicted=self._control.attained(0),
            at_deadline=recent.at_deadline,
            tokens=recent.tokens,
            tokens_promised=self._promised.tokens_per_query,
            rate=recent.rate,
            planned=self._planned,
            refused=self.refused,
        )


def _targets(promised: QueryClass) -> list[Target]:
    targets = [Target(percentile / 100, seconds) for percentile, seconds in promised.targets]
    if promised.deadline is not None:
        targets.append(Target(DEADLINE_SHARE, promised.deadline))
    return targets
