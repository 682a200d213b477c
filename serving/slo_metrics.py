"""What Prometheus is told of the promises; docs/slo_watch.md lists it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from dynasor.slo.class_status import Status


class SloMetrics:
    """Gauges by class, brought up to date when they are asked for.

    Args:
        registry: of the server.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"dynasor_slo_{name}", what, ["class", *labels], registry=registry)

        self._alarms = gauge("alarms", "Alarms since the watch began; above 0: fallen back")
        self._drift = gauge("drift_evidence", "Evidence of drift; 1 raises the alarm", "trait")
        self._compared = gauge("drift_queries", "Queries compared in this period of the watch")
        self._audits = gauge("audits", "Audits since the class last fell back", "result")
        self._loss = gauge("loss_bound", "Bounds of the share of other answers", "side")
        self._epsilon = gauge("loss_promised", "Share of other answers, at most, as promised")
        self._level = gauge("level", "Rung of the last query; 0: no overload")
        self._attained = gauge("class_attainment", "Share of recent answers in time")
        self._predicted = gauge("predicted_attainment", "The same of queries that come now")
        self._at_deadline = gauge(
            "at_deadline",
            "Share of recent answers that a deadline cut; epsilon does not cover them",
        )
        self._tokens = gauge("tokens_per_query", "Output tokens of a query, mean of recent answers")
        self._tokens_promised = gauge("tokens_per_query_promised", "Most of that, as promised")
        self._rate = gauge("queries_per_second", "Queries that came in the last minute, a second")
        self._planned = gauge("queries_per_second_planned", "For which the promise was made")
        self._refused = gauge("refused", "Queries refused: late, or beyond the tokens of a day")

    def update(self, statuses: Mapping[str, Status]) -> None:
        """Take over how each class does."""
        for name, status in statuses.items():
            self._alarms.labels(name).set(len(status.alarms))
            for trait, evidence in status.evidence.items():
                self._drift.labels(name, trait).set(evidence)
            self._compared.labels(name).set(status.seen)
            for result, count in status.audited.items():
                self._audits.labels(name, result).set(count)
            for side, bound in zip(("low", "high"), status.bounds, strict=True):
                self._loss.labels(name, side).set(bound)
            if status.epsilon is not None:
                self._epsilon.labels(name).set(status.epsilon)
            self._level.labels(name).set(status.level)
            self._attained.labels(name).set(status.attained)
            self._predicted.labels(name).set(status.predicted)
            self._at_deadline.labels(name).set(status.at_deadline)
            self._rate.labels(name).set(status.rate)
            for gauge, value in (
                (self._tokens, status.tokens),
                (self._tokens_promised, status.tokens_promised),
                (self._planned, status.planned),
            ):
                if value is not None:
                    gauge.labels(name).set(value)
            self._refused.labels(name).set(status.refused)
