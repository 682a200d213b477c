"""Data files of prompts and the length of their answers: `.jsonl` or `.jsonl.gz`, and their splits.

A line is an object with the fields of `LengthExample`; `prompt`, `tokens` and `conversation` must be
there. Other fields are not read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from dynasor.errors import DataError
from dynasor.ranking.examples import LengthExample

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
VALIDATION_SHARE = 0.05
TEST_SHARE = 0.13
LONGEST_LINE = 16 << 20
"""Bytes; a prompt of 4 million tokens fits."""


def split_of(conversation: str) -> Split:
    """The split of a conversation, by a hash of its name: the same in every run and every version."""
    digest = hashlib.sha256(conversation.encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


def read_examples(path: str | Path) -> list[LengthExample]:
    """All examples of a data file.

    Raises:
        DataError: naming file, line, field and what to do; also where the file has no example.
    """
    examples = list(stream_examples(path))
    if not examples:
        raise DataError(f"{path}: holds no example; build it with `dynasor rank build-data`")
    return examples


def stream_examples(path: str | Path) -> Iterator[LengthExample]:
    """The examples of a data file, one after the other.

    Raises:
        DataError: naming file, line, field and what to do, when the iterator comes to it.
    """
    path = Path(path)
    number = 0
    try:
        with _open(path, "rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                where = f"{path}, line {number}"
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{where}: longer than {LONGEST_LINE} bytes; remove it")
                if line.strip():
                    yield _parse(line, where)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: broken after line {number} ({error}); copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from None


def example_line(example: LengthExample) -> bytes:
    """The line of an example in a data file, with its newline; what is as by default is left out."""
    defaults = {f.name: f.default for f in fields(LengthExample)}
    row = {key: value for key, value in asdict(example).items() if value != defaults[key]}
    return (json.dumps(row) + "\n").encode()


def write_examples(path: str | Path, examples: Iterable[LengthExample]) -> int:
    """Write a data file; returns how many examples it holds.

    Raises:
        DataError: if the file cannot be written.
    """
    path = Path(path)
    count = 0
    try:
        with _open(path, "wb") as file:
            for example in examples:
                file.write(example_line(example))
                count += 1
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); check the path") from None
    return count


def _open(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, mode))
    return cast(IO[bytes], path.open(mode))


class _Field(NamedTuple):
    needed: bool
    allowed: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FIELDS: dict[str, _Field] = {
    "prompt": _Field(True, "a text", lambda value: isinstance(value, str)),
    "tokens": _Field(True, "a number above 0", lambda value: _number(value) and value > 0),
    "conversation": _Field(True, "a text", lambda value: isinstance(value, str)),
    "samples": _Field(
        False,
        "a whole number above 0",
        lambda value: _number(value) and isinstance(value, int) and value > 0,
    ),
    "turn": _Field(
        False,
        "a whole number of 0 or more",
        lambda value: _number(value) and isinstance(value, int) and value >= 0,
    ),
    "spread": _Field(
        False,
        "null or a number of 0 or more",
        lambda value: value is None or (_number(value) and value >= 0),
    ),
    "cut": _Field(False, "a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
}


def _parse(line: bytes, where: str) -> LengthExample:
    try:
        row = json.loads(line)
    except RecursionError:
        raise DataError(f"{where}: nested too deeply; remove it") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); mend or remove it") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object but {row!r:.40}; remove it")
    for name, field in _FIELDS.items():
        if name not in row:
            if field.needed:
                raise DataError(
                    f"{where}: field '{name}' is missing; make the file with "
                    "`dynasor rank build-data`, or add the field"
                )
        elif not field.holds(row[name]):
            raise DataError(
                f"{where}: field '{name}' must be {field.allowed}, not {row[name]!r:.80}; mend it"
            )
    return LengthExample(**{name: row[name] for name in _FIELDS if name in row})
