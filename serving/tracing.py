"""OpenTelemetry: one span a query, one a request, sent where the standard variables say.

Nothing is recorded unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or its variant for traces) is set, or
`OTEL_TRACES_EXPORTER=console`.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.trace import Tracer

NAME = "dynasor"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracer_of(environment: Mapping[str, str]) -> Tracer:
    """A tracer, which does nothing where nobody asked for traces."""
    wanted = environment.get("OTEL_TRACES_EXPORTER")
    if wanted != "console" and not any(environment.get(name) for name in _ENDPOINTS):
        return trace.NoOpTracer()
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if wanted == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer(NAME)
