"""The results of an online benchmark on disk, line by line, so that nothing is lost with an engine.

run.json           what was run; the same command finds it again
reference.json     unloaded latencies and capacity
completions.jsonl  each answered arrival, as it was answered
points.jsonl       each finished run; a run without its line here is run again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from dynasor.bench.online_plan import Point
from dynasor.bench.reference import Reference
from dynasor.bench.slo import Window, slowdown
from dynasor.bench.workload import Arrival, Completion
from dynasor.errors import RunError
from dynasor.run_folder import RUN, claim_folder, open_for_lines

REFERENCE, COMPLETIONS, POINTS = "reference.json", "completions.jsonl", "points.jsonl"


@dataclass(frozen=True, slots=True)
class PointResult:
    """A finished run.

    Attributes:
        point: which.
        window: which arrivals counted.
        completions: all that were answered, or were unfinished though they count.
        seconds: how long it took.
        generator: what the load generator said of itself; empty in the simulator.
        counters: what the engine's scheduler counted; empty where it does not count.
    """

    point: Point
    window: Window
    completions: tuple[Completion, ...]
    seconds: float
    generator: Mapping[str, float] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> list[Completion]:
        """The completions that count."""
        return [c for c in self.completions if self.window.holds(c.arrival.time)]


class OnlineFolder:
    """Opens the folder of a benchmark, new or to go on with; use it as a context manager.

    Args:
        path: the folder, made where it is missing.
        settings: what the benchmark is; a folder that holds another one is refused.
        fresh: throw an earlier benchmark in this folder away.

    Raises:
        RunError: if the folder holds another run, or cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.results: dict[Point, PointResult] = {}
        self.reference: Reference | None = None
        self._slowdowns: dict[Point, list[float]] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            if fresh:
                for name in (RUN, REFERENCE, COMPLETIONS, POINTS):
                    (path / name).unlink(missing_ok=True)
            claim_folder(path, settings)
            self._completions_file = open_for_lines(path / COMPLETIONS)
            self._points_file = open_for_lines(path / POINTS)
            self._load()
        except OSError as error:
            raise RunError(f"cannot write to {path}: {error.strerror}") from error

    def _load(self) -> None:
        if (self.path / REFERENCE).exists():
            self.reference = Reference(**json.loads((self.path / REFERENCE).read_text()))
        attempts: dict[tuple[Point, int], list[Completion]] = {}
        for row in self._rows(COMPLETIONS):
            completion = Completion(**row["completion"] | {"arrival": Arrival(**row["arrival"])})
            attempts.setdefault((Point(**row["point"]), row["attempt"]), []).append(completion)
        for row in self._rows(POINTS):
            point = Point(**row["point"])
            self.results[point] = PointResult(
                point,
                Window(*row["window"]),
                tuple(attempts.get((point, row["attempt"]), ())),
                row["seconds"],
                row["generator"],
                row["counters"],
            )
        self._attempts = Counter(
            {point: 1 + max(a for p, a in attempts if p == point) for point, _ in attempts}
        )

    def _rows(self, name: str) -> list[dict[str, Any]]:
        rows = []
        for number, line in enumerate((self.path / name).read_bytes().split(b"\n")[:-1], 1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise RunError(
                    f"{self.path / name}, line {number} is damaged; start anew with --fresh"
                ) from None
        return rows

    @property
    def slowdowns(self) -> dict[Point, list[float]]:
        """Finished run -> latency over unloaded latency of each query that counts."""
        if self.reference is None:
            return {}
        for point, result in self.results.items():
            if point not in self._slowdowns:
                unloaded = self.reference.unloaded
                self._slowdowns[point] = [slowdown(each, unloaded) for each in result.counted]
        return self._slowdowns

    def write_reference(self, reference: Reference) -> None:
        """Keep what the systems are measured by."""
        self.reference = reference
        (self.path / REFERENCE).write_text(json.dumps(asdict(reference), indent=2) + "\n")

    def write_completion(self, point: Point, completion: Completion) -> None:
        """Keep an answered arrival of a run that is under way."""
        row = asdict(completion)
        arrival = row.pop("arrival")
        self._append(
            self._completions_file,
            {
                "point": point._asdict(),
                "attempt": self._attempts[point],
                "arrival": arrival,
                "completion": row,
            },
        )

    def write_point(self, result: PointResult) -> None:
        """Keep a finished run, whose completions were written before."""
        row = {
            "point": result.point._asdict(),
            "attempt": self._attempts[result.point],
            "window": list(result.window),
            "seconds": result.seconds,
            "generator": dict(result.generator),
            "counters": dict(result.counters),
        }
        self._append(self._points_file, row)
        self.results[result.point] = result

    def _append(self, file: Any, row: Mapping[str, Any]) -> None:
        try:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._completions_file.close()
        self._points_file.close()
