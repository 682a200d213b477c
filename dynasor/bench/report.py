"""The report of a benchmark: an HTML page with its pictures inside, and these as PNGs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from certaindex.stopping import parse_rule
from dynasor.bench.plots import (
    Point,
    save_calibration,
    save_frontier,
    save_reasons,
    save_samples,
)
from dynasor.bench.summary import Row, Summary
from dynasor.config import Config
from dynasor.replay import collect_queries, replay
from dynasor.run_folder import SAMPLES
from dynasor.suites import Suite
from dynasor.traces import read_traces

ORDERS = 20
"""Random orders a question in the report's replay; enough for a picture."""

GRID: Mapping[str, tuple[str, ...]] = {
    "certaindex": tuple(f"certaindex:{x}" for x in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    "adaptive-consistency": tuple(
        f"adaptive-consistency:{x}" for x in (0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    ),
    "esc": tuple(f"esc:{x}" for x in (2, 3, 4, 5, 6, 8)),
    "leader-change": tuple(f"leader-change:{x}" for x in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)),
    "default": ("default",),
}


def frontier(trace: Path, samples: int, orders: int = ORDERS) -> list[Point]:
    """Accuracy and tokens of every rule on a recorded run of the full budget."""
    recorded = [
        sample
        for sample in read_traces(trace, skip_torn_end=True)
        if sample.finish_reason not in ("aborted", "error")
    ]
    queries = collect_queries(recorded)
    grid = {"fixed": tuple(f"fixed:{n}" for n in range(1, samples + 1)), **GRID}
    rules = {text: parse_rule(text) for texts in grid.values() for text in texts}
    result = {rule.rule: rule for rule in replay(queries, rules, orders=orders).rules}
    return [
        Point(family, text, result[text].tokens, result[text].accuracy)
        for family, texts in grid.items()
        for text in texts
    ]


def write_report(
    path: Path,
    suite: Suite,
    config: Config,
    summaries: Sequence[Summary],
    rows: Mapping[str, Sequence[Row]],
) -> Path:
    """Write `report.html`, `summary.json` and the pictures into `path`; the page's path."""
    pictures: list[tuple[str, str]] = []
    graded = all(row["correct"] is not None for table in rows.values() for row in table)
    trace = path / "full" / SAMPLES
    voted = config.algorithm.name == "self-consistency"  # what a replay of samples can tell
    if voted and graded and trace.exists() and not any(s.failed for s in summaries[:1]):
        save_frontier(frontier(trace, config.algorithm.samples), path / "frontier.png")
        pictures.append(("frontier.png", FRONTIER_CAPTION.format(orders=ORDERS)))
    most = max(row["samples"] for table in rows.values() for row in table)
    save_samples(rows, most, path / "samples.png")
    pictures.append(("samples.png", SAMPLES_CAPTION))
    if graded:
        last = list(rows.values())[-1]
        save_calibration(last, path / "calibration.png")
        pictures.append(("calibration.png", CALIBRATION_CAPTION.format(name=list(rows)[-1])))
    save_reasons(rows, path / "stops.png")
    pictures.append(("stops.png", STOPS_CAPTION))
    (path / "summary.json").write_text(
        json.dumps({"suite": suite.name, "systems": [asdict(s) for s in summaries]}, indent=2)
    )
    template = Environment(autoescape=True).from_string(
        (files("dynasor.bench") / "report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        suite=suite.name,
        summaries=summaries,
        pictures=[
            (name, base64.b64encode((path / name).read_bytes()).decode(), caption)
            for name, caption in pictures
        ],
        settings=config.model_dump(mode="json"),
        questions=_examples(suite, rows),
    )
    (path / "report.html").write_text(page, encoding="utf-8")
    return path / "report.html"


FRONTIER_CAPTION = (
    "Every rule replayed on the samples of the full-budget run, {orders} random orders a question, "
    "one sample at a time. The grey line is what a fixed number of samples gives."
)
SAMPLES_CAPTION = "Easy questions stop after a few samples; what they save is what the rule saves."
CALIBRATION_CAPTION = (
    "Questions by certaindex when {name} stopped: size and number are the questions in the bin, "
    "bars the 95% interval. The dashed line is what a perfectly calibrated probability would give."
)
STOPS_CAPTION = "Each bar is all questions of a system, by the reason for its stop."


def _examples(suite: Suite, rows: Mapping[str, Sequence[Row]], most: int = 12) -> list[Row]:
    """The first questions with the votes of the last system, for a look at real cases."""
    last = list(rows.values())[-1]
    texts = {query.id: query.question for query in suite.queries}
    return [row | {"question": texts[row["query"]]} for row in last[:most]]
