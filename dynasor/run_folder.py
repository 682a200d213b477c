"""A run on disk, so that it can be killed at any time and go on.

    run.json        what was run; the same command finds it again
    samples.jsonl   each finished sample (trace format), written before it counts
    outcomes.jsonl  each finished query

A query with an outcome is not run again; the finished samples of the others are used as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from algorithms.program import Generation, Program, Request
from dynasor.errors import DataError, RunError
from dynasor.traces import TraceSample, TraceWriter, read_traces

RUN, SAMPLES, OUTCOMES = "run.json", "samples.jsonl", "outcomes.jsonl"


class RunFolder:
    """Opens a folder for one run, new or to go on with; use it as a context manager.

    Args:
        path: the folder, made where it is missing.
        settings: what the run is; a folder that holds another run is refused.
        golds: query -> right answer, for the trace.
        extract: request text -> answer as it will be counted, for the trace.
        fresh: throw an earlier run in this folder away.

    Raises:
        RunError: if the folder holds another run, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        golds: Mapping[str, str | None],
        extract: Any,
        fresh: bool = False,
    ) -> None:
        self.path = path
        self._golds = golds
        self._extract = extract
        self._samples: dict[tuple[str, int], TraceSample] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            if fresh:
                for name in (RUN, SAMPLES, OUTCOMES):
                    (path / name).unlink(missing_ok=True)
            claim_folder(path, settings)
            self._load()
            self._writer = TraceWriter(path / SAMPLES)
            self._outcomes_file = open_for_lines(path / OUTCOMES)
        except OSError as error:
            raise RunError(f"cannot write to {path}: {error.strerror}") from error
        except DataError as error:
            raise RunError(f"{error}; or start anew with --fresh") from error

    def _load(self) -> None:
        if (self.path / SAMPLES).exists():
            for sample in read_traces(self.path / SAMPLES, skip_torn_end=True):
                self._samples[sample.query, sample.sample] = sample
        if (self.path / OUTCOMES).exists():
            lines = (self.path / OUTCOMES).read_bytes().split(b"\n")[:-1]
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    self.outcomes[row["query"]] = row
                except (ValueError, KeyError, TypeError):
                    raise RunError(
                        f"{self.path / OUTCOMES}, line {number} is damaged; remove the line to run "
                        "that query again"
                    ) from None

    @property
    def finished_samples(self) -> int:
        """Samples of earlier runs that will not be repeated."""
        return sum(1 for sample in self._samples.values() if sample.finish_reason != "aborted")

    def recorded(self, request: Request) -> Generation | None:
        """The finished sample of an earlier run that answers this request."""
        sample = self._samples.get((request.program, request.index))
        if (
            request.kind != "sample"
            or sample is None
            or sample.finish_reason not in ("stop", "length")
        ):
            return None
        return Generation(
            request=request.id,
            text=sample.text or "",
            tokens=sample.tokens,
            prompt_tokens=sample.prompt_tokens or 0,
            cached_tokens=sample.extra.get("cached_tokens", 0),
            finish_reason="stop" if sample.finish_reason == "stop" else "length",
            confidence=sample.confidence,
            logprobs=sample.logprobs,
        )

    def write(self, program: Program, request: Request, generation: Generation) -> None:
        """Append a sample; it is with the operating system when this returns.

        Steps, probes and rewards are not kept: a query that lives on them begins anew after a kill.

        Raises:
            RunError: if the disk is full or gone.
        """
        if request.kind != "sample":
            return
        finished = generation.finish_reason in ("stop", "length")
        prompt = request.prompt
        sample = TraceSample(
            query=request.program,
            sample=request.index,
            tokens=generation.tokens,
            answer=self._extract(generation.text) if finished else None,
            gold=self._golds.get(request.program),
            prompt=prompt
            if isinstance(prompt, str)
            else [{"role": m["role"], "content": m["content"]} for m in prompt],
            finish_reason=generation.finish_reason,
            text=generation.text,
            prompt_tokens=generation.prompt_tokens,
            confidence=list(generation.confidence) if generation.confidence else None,
            logprobs=list(generation.logprobs) if generation.logprobs else None,
            sampling=asdict(request.sampling),
            extra={"cached_tokens": generation.cached_tokens},
        )
        try:
            self._writer.write(sample)
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror}") from error

    def write_outcome(self, row: Mapping[str, Any]) -> None:
        """Append the outcome of a query; `row` has a `query`.

        Raises:
            RunError: if the disk is full or gone.
        """
        try:
            self._outcomes_file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._outcomes_file.flush()
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror}") from error
        self.outcomes[row["query"]] = dict(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Push everything to the disk and close the files."""
        try:
            self._writer.close()
        finally:
            self._outcomes_file.close()


def claim_folder(path: Path, settings: Mapping[str, Any]) -> None:
    """Write into a folder's run.json what its run is, or see that it is the same run.

    Raises:
        RunError: if the folder holds another run.
    """
    file = path / RUN
    settings = json.loads(json.dumps(settings))
    if not file.exists():
        new = file.with_suffix(".new")
        new.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        new.replace(file)  # so that a kill leaves either no run or a whole one
        return
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise RunError(f"{file} is not readable; start anew with --fresh") from None
    differing = sorted(
        key for key in settings.keys() | earlier.keys() if settings.get(key) != earlier.get(key)
    )
    if differing:
        key = differing[0]
        raise RunError(
            f"{path} holds a run with other settings ({key}: {earlier.get(key)!r} "
            f"there, {settings.get(key)!r} now); choose another --out, or --fresh to "
            "throw it away"
        )


def open_for_lines(path: Path) -> IO[bytes]:
    """Open for appending, without the torn last line that a killed run may have left."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
    return path.open("ab")
