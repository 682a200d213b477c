"""What Prometheus is told; docs/endpoint.md lists it."""

from __future__ import annotations

from collections import deque
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.live_query import LiveQuery
from serving.slo_metrics import SloMetrics

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SAMPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
RECENT = 500
"""Answers over which attainment is counted."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, what, ["algorithm"], registry=registry, buckets=buckets)

        self.query_seconds = histogram(
            "dynasor_query_seconds", "From arrival until the client has all or left", _SECONDS
        )
        self.first_token_seconds = histogram(
            "dynasor_first_token_seconds", "From arrival to the first token that was told", _SECONDS
        )
        self.answer_seconds = histogram(
            "dynasor_answer_seconds", "From arrival to the decision on the answer", _SECONDS
        )
        self.samples = histogram("dynasor_query_samples", "Finished samples a query", _SAMPLES)
        self.certainty = histogram("dynasor_certainty", "Certaindex at the end", _SHARES)
        self.stopped = Counter(
            "dynasor_queries",
            "Ended queries by reason; left: the client did",
            ["algorithm", "reason"],
            registry=registry,
        )
        self.tokens = Counter(
            "dynasor_tokens",
            "Tokens spent: answer, other_samples, probes, cut, prompt, audit",
            ["kind"],
            registry=registry,
        )
        self.saved = Counter(
            "dynasor_tokens_saved", "Expected tokens of full budgets, not spent", registry=registry
        )
        self.refused = Counter(
            "dynasor_http_responses", "HTTP answers by status", ["status"], registry=registry
        )
        self.rank_seconds = Histogram(
            "dynasor_rank_seconds",
            "Time to rank a request",
            registry=registry,
            buckets=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1),
        )
        self.recovery_seconds = Histogram(
            "dynasor_engine_recovery_seconds",
            "From a death of the engine to the next one",
            registry=registry,
            buckets=_SECONDS,
        )
        self.restarts = Counter(
            "dynasor_engine_restarts", "Engines started anew", registry=registry
        )

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(name, what, registry=registry)

        self.running = gauge("dynasor_gangs_running", "Queries at work")
        self.requests = gauge("dynasor_requests_running", "Requests in the engine's hands")
        self.waiting = gauge("dynasor_requests_waiting", "Requests in the engine's queue")
        self.kv = gauge("dynasor_kv_cache_share", "Share of the KV cache in use")
        self.prefixes = gauge(
            "dynasor_prefix_cache_share", "Share of prompt tokens that the prefix cache held"
        )
        self.starvation = gauge(
            "dynasor_starvation_seconds", "Longest wait of a query without its first token"
        )
        self.attainment = gauge("dynasor_slo_attainment", "Share of recent answers in time")
        self.ready = gauge("dynasor_engine_ready", "1 while the engine serves")
        self.promises = SloMetrics(registry)
        self.spent_total = self.saved_total = 0
        """Output tokens of all queries, and those that their full budgets would have cost more."""
        self._in_time: deque[bool] = deque(maxlen=RECENT)
        self.slo = 10.0
        """Seconds in which an answer is in time, where its client set no deadline."""

    def query_ended(self, query: LiveQuery) -> None:
        """Count a query that has ended or was left."""
        algorithm, outcome = query.plan.algorithm, query.outcome
        self.query_seconds.labels(algorithm).observe(monotonic() - query.arrival)
        if query.first_token is not None:
            self.first_token_seconds.labels(algorithm).observe(query.first_token)
        reason = outcome.reason if outcome else "lost" if query.error else "left"
        self.stopped.labels(algorithm, reason).inc()
        if outcome is None:
            self.tokens.labels("cut").inc(query.tokens_now)
            self.spent_total += query.tokens_now
            return
        self.answer_seconds.labels(algorithm).observe(outcome.seconds)
        in_time = outcome.seconds <= (query.plan.deadline if query.plan.in_hurry else self.slo)
        self._in_time.append(in_time and reason not in ("deadline", "failed"))
        self.attainment.set(self.attained)
        self.samples.labels(algorithm).observe(outcome.samples)
        if not query.plan.plain:
            self.certainty.labels(algorithm).observe(outcome.certainty.value)
        tokens = query.report().tokens
        assert tokens is not None
        self.tokens.labels("answer").inc(tokens.answer)
        self.tokens.labels("other_samples").inc(tokens.other_samples)
        self.tokens.labels("probes").inc(tokens.probes)
        self.tokens.labels("cut").inc(tokens.cut)
        self.tokens.labels("prompt").inc(outcome.bill.prompt)
        self.saved.inc(tokens.saved)
        self.spent_total += outcome.bill.output
        self.saved_total += tokens.saved

    @property
    def attained(self) -> float:
        """Share of recent answers in time; 1 before the first."""
        return sum(self._in_time) / len(self._in_time) if self._in_time else 1.0

    def recovered(self, seconds: float) -> None:
        """The engine was started anew."""
        self.restarts.inc()
        self.recovery_seconds.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
