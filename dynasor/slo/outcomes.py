"""How recorded queries end under many settings, each query once, in one random order.

The loss of a query is against the answer that it would have had if it had gone on to the full budget,
on the same samples in the same order, so that the full budget itself loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from certaindex.rules.never import Never
from certaindex.stopping import StopRule, parse_rule
from dynasor.recorded_query import RecordedQuery, is_right
from dynasor.replay import draw_orders
from dynasor.replay_run import Ending, run_rules
from dynasor.slo.promise import ClassSettings, LossKind


class Setting(NamedTuple):
    """What decides on a class's losses and tokens: stop rule, full budget in samples, wave."""

    rule: str
    samples: int
    wave: int

    def section(self) -> ClassSettings:
        """As `[slo.classes.NAME.settings]`."""
        return ClassSettings(rule=self.rule, samples=self.samples, wave=self.wave)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The ends of all queries under some settings.

    Attributes:
        differed: (settings, queries) bool, whether the answer is not the full budget's.
        right: (settings, queries) bool, whether it is the gold one.
        full_right: (settings, queries) bool, whether the full budget's is, at the setting's wave.
        tokens: (settings, queries) float64, output tokens, those of cut samples included.
        samples: (settings, queries) float64, finished samples.
        sample_tokens: (settings, queries) float64, mean tokens of these.
        certainty: (settings, queries) float64, agreement certaindex at the stop.
        agreement: (settings, queries) float64, share of the leading answer.
    """

    differed: NDArray[np.bool_]
    right: NDArray[np.bool_]
    full_right: NDArray[np.bool_]
    tokens: NDArray[np.float64]
    samples: NDArray[np.float64]
    sample_tokens: NDArray[np.float64]
    certainty: NDArray[np.float64]
    agreement: NDArray[np.float64]

    def losses(self, kind: LossKind) -> NDArray[np.float64]:
        """(settings, queries) what is lost: 0 or 1, and -1 too for accuracy."""
        if kind == "answer":
            return self.differed.astype(np.float64)
        return self.full_right.astype(np.float64) - self.right.astype(np.float64)

    def bounded_losses(self, kind: LossKind) -> NDArray[np.float64]:
        """(settings, queries) 0 or 1, what a guarantee is computed on; see `certaindex.calibration`."""
        return np.maximum(self.losses(kind), 0.0)

    def at(self, settings: object, queries: object) -> Outcomes:
        """Of some settings and some queries, both given as numpy indexes or slices."""
        picked = {
            field.name: getattr(self, field.name)[settings][:, queries] for field in fields(self)
        }
        return Outcomes(**picked)


def stack(parts: Sequence[Outcomes]) -> Outcomes:
    """Settings of several tables over the same queries, one below the other."""
    names = [field.name for field in fields(Outcomes)]
    return Outcomes(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def outcomes_of(
    queries: Sequence[RecordedQuery],
    rules: Sequence[str],
    *,
    samples: int,
    wave: int,
    full_samples: int,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> Outcomes:
    """Run every rule on every query, on its own random order of the samples.

    Args:
        queries: with `full_samples` recorded samples or more.
        rules: texts of stop rules.
        samples: full budget that the rules see.
        wave: samples in flight.
        full_samples: full budget against which losses are.
        seed: of the orders; a query's order depends on it and on the query's place only.
        progress: called after each query.
    """
    parsed = [parse_rule(rule) for rule in rules]
    rows: list[list[Ending]] = []
    full: list[int | None] = []
    for place, query in enumerate(queries):
        [order] = draw_orders(query, 1, full_samples, seed, place)
        endings, answer = _endings(query, order, parsed, samples, wave)
        rows.append(endings)
        full.append(answer)
        if progress:
            progress()
    pairs = list(zip(queries, rows, full, strict=True))
    numbers = np.array(
        [
            [(e.tokens, e.samples, e.sample_tokens, e.certainty, e.agreement) for e in row]
            for row in rows
        ],
        dtype=np.float64,
    ).transpose(2, 1, 0)
    return Outcomes(
        differed=np.array([[e.answer != answer for e in row] for _, row, answer in pairs]).T,
        right=np.array([[is_right(query, e.answer) for e in row] for query, row, _ in pairs]).T,
        full_right=np.array(
            [[is_right(query, answer)] * len(row) for query, row, answer in pairs]
        ).T,
        tokens=numbers[0],
        samples=numbers[1],
        sample_tokens=numbers[2],
        certainty=numbers[3],
        agreement=numbers[4],
    )


def _endings(
    query: RecordedQuery, order: list[int], rules: list[StopRule], samples: int, wave: int
) -> tuple[list[Ending], int | None]:
    """How the rules end it, and the answer of the full budget."""
    if samples == len(order):
        *endings, full = run_rules(query, order, [*rules, Never()], wave)
        return endings, full.answer
    endings = run_rules(query, order[:samples], rules, wave)
    [full] = run_rules(query, order, [Never()], wave)
    return endings, full.answer
