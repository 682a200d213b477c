"""Traces: recorded samples, JSON Lines, one sample a line, `.jsonl` or `.jsonl.gz`.

A recorder writes them; replay and the simulator read them; calibration and rank training learn from
them. Fields that this version does not know are kept and written back.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from dynasor.errors import DataError

MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read; 100,000 tokens with all their log-probabilities take about 5 MB."""
MOST_TOKENS = 10**9
"""Of a sample."""


@dataclass(frozen=True, slots=True)
class TraceSample:
    """One recorded sample.

    Attributes:
        query: name of the question.
        sample: index of the sample among those of its query.
        tokens: output tokens.
        answer: the answer as extracted; None where there is none.
        gold: the right answer; None where unknown.
        prompt: what the model was asked, text or chat messages.
        finish_reason: how the sample ended.
        text: output text.
        prompt_tokens: tokens of the prompt.
        logprobs: log-probability of each chosen token.
        confidence: confidence of each token (see `certaindex.confidence`).
        model: name of the model.
        sampling: its sampling parameters.
        extra: fields that this version does not know.
    """

    query: str
    sample: int
    tokens: int
    answer: str | None = None
    gold: str | None = None
    prompt: str | list[dict[str, str]] | None = None
    finish_reason: str | None = None
    text: str | None = None
    prompt_tokens: int | None = None
    logprobs: list[float] | None = None
    confidence: list[float] | None = None
    model: str | None = None
    sampling: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


_REQUIRED: dict[str, type] = {"query": str, "sample": int, "tokens": int}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "answer": str,
    "gold": str,
    "prompt": (str, list),
    "finish_reason": str,
    "text": str,
    "prompt_tokens": int,
    "logprobs": list,
    "confidence": list,
    "model": str,
    "sampling": dict,
}


def read_traces(path: str | Path, *, skip_torn_end: bool = False) -> Iterator[TraceSample]:
    """Stream the samples of a trace file.

    Args:
        path: a `.jsonl` or `.jsonl.gz` file.
        skip_torn_end: leave out a last line that a killed writer did not complete; else an error.

    Raises:
        DataError: naming file, line, field and what to do.
    """
    path = Path(path)
    number = 0
    try:
        with _open(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes; is it a trace?"
                    )
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if skip_torn_end and not line.endswith(b"\n"):
                        return
                    raise DataError(
                        f"{path}, line {number}: not JSON ({error}); mend or remove the line"
                    ) from error
                yield _parse(row, f"{path}, line {number}")
    except EOFError as error:
        if not skip_torn_end:
            raise DataError(
                f"{path}: the gzip stream ends early, after line {number}; copy the file again"
            ) from error
    except zlib.error as error:
        raise DataError(
            f"{path}: the gzip stream is broken after line {number} ({error}); copy the file again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path"
        ) from error


class TraceWriter:
    """Appends samples to a trace file; use it as a context manager.

    A torn last line, which a killed writer left in a `.jsonl` file, is cut off before the first
    append. In a `.jsonl.gz` file each writer adds one gzip member.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            if self._path.suffix != ".gz":
                _cut_torn_end(self._path)
            self._file = _open(self._path, "ab")
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error}); check the path") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, sample: TraceSample) -> None:
        """Append one sample and hand it to the operating system."""
        row = {
            name: value
            for name in (f.name for f in fields(sample) if f.name != "extra")
            if (value := getattr(sample, name)) is not None or name in ("answer", "gold")
        }
        line = json.dumps(row | sample.extra, ensure_ascii=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, mode))
    return cast(IO[bytes], path.open(mode))


def _cut_torn_end(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = _end_of_last_line(file)
        file.truncate(end)


def _end_of_last_line(file: BufferedIOBase | IO[bytes]) -> int:
    """Bytes up to and with the last newline; searched backwards, block by block."""
    position = file.seek(0, 2)
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _parse(row: object, where: str) -> TraceSample:
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object but {row!r:.40}; remove the line")
    for name, kind in _REQUIRED.items():
        if name not in row:
            raise DataError(f"{where}: field '{name}' is missing; record the trace again or add it")
        _check(row[name], name, kind, where)
    for name, allowed in _OPTIONAL.items():
        if row.get(name) is not None:
            _check(row[name], name, allowed, where)
    if not 0 <= row["tokens"] <= MOST_TOKENS:
        raise DataError(
            f"{where}: field 'tokens' must be 0 to {MOST_TOKENS}, not {row['tokens']}; mend it"
        )
    known = {name: row[name] for name in (*_REQUIRED, *_OPTIONAL) if name in row}
    extra = {name: value for name, value in row.items() if name not in known}
    return TraceSample(**known, extra=extra)


def _check(value: object, name: str, kind: type | tuple[type, ...], where: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        allowed = " or ".join({"str": "a text", "int": "a whole number", "list": "a list"}.get(
            k.__name__, "an object") for k in kinds)  # fmt: skip
        raise DataError(f"{where}: field '{name}' must be {allowed}, not {value!r:.80}; mend it")
