"""Rows of a file of questions: JSON Lines, also compressed, or a JSON list."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynasor.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json")
LARGEST_FILE = 1 << 30
"""Bytes, unpacked; more is a training set, not a benchmark."""
LONGEST_LINE = 16 << 20


def file_rows(path: Path) -> Iterator[tuple[Any, str]]:
    """Each row of a file, and its place for errors.

    Raises:
        DataError: naming the file, the line and what to do, when the iterator comes to it.
    """
    try:
        yield from _list_rows(path) if path.suffix == ".json" else _line_rows(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _list_rows(path: Path) -> Iterator[tuple[Any, str]]:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path}: larger than {LARGEST_FILE} bytes")
    rows = _parse(content.removeprefix(b"\xef\xbb\xbf"), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: must hold a list of questions, not {type(rows).__name__}")
    yield from ((row, f"{path}, item {n}") for n, row in enumerate(rows, 1))


def _line_rows(path: Path) -> Iterator[tuple[Any, str]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        number = size = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            size += len(line)
            where = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{where}: longer than {LONGEST_LINE} bytes")
            if size > LARGEST_FILE:
                raise DataError(f"{where}: the file is larger than {LARGEST_FILE} bytes; use less")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # some editors put this mark there
            if line.strip():
                yield _parse(line, where), where


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{where}: nested too deeply; mend or remove it") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with too many digits
        raise DataError(f"{where}: not valid JSON ({error}); mend or remove it") from None
