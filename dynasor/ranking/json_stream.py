"""Objects of a JSON list or of JSON Lines, read one after the other, also where the file is cut off."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynasor.errors import DataError

LARGEST_OBJECT = 64 << 20
"""Characters of one object of a file."""
_BLOCK = 1 << 20
_BETWEEN = " \t\r\n,"
_LONGEST_LITERAL = 8
"""Characters before a cut in which an error may be the cut's doing: `fals`, or half an escape."""
_DECODER = json.JSONDecoder()


def stream_objects(path: Path) -> Iterator[tuple[Any, str]]:
    """Each object of a file, and its place for errors; an object that the file's end cuts is left out.

    Args:
        path: a file with a list of objects, or with an object a line; `.gz` is unpacked.

    Raises:
        DataError: naming file and place, when the iterator comes to it.
    """
    buffer, start, number, opened = "", 0, 0, False
    for block in _blocks(path):
        buffer, start = buffer[start:] + block, 0
        while True:
            start = _skip(buffer, start)
            if not opened and start < len(buffer):
                opened = True
                if buffer[start] == "[":
                    start = _skip(buffer, start + 1)
            if start == len(buffer) or buffer[start] == "]":
                break
            where = f"{path}, object {number + 1}"
            try:
                found, start = _DECODER.raw_decode(buffer, start)
            except RecursionError:
                raise DataError(f"{where}: nested too deeply; remove it") from None
            except json.JSONDecodeError as error:
                if not _may_go_on(error, len(buffer)):
                    raise DataError(
                        f"{where}: not JSON ({error.msg} at {buffer[error.pos : error.pos + 20]!r}); "
                        "mend or remove it"
                    ) from None
                if len(buffer) - start > LARGEST_OBJECT:
                    raise DataError(f"{where}: longer than {LARGEST_OBJECT} characters") from None
                break
            number += 1
            yield found, where


def _skip(buffer: str, start: int) -> int:
    while start < len(buffer) and buffer[start] in _BETWEEN:
        start += 1
    return start


def _may_go_on(error: json.JSONDecodeError, length: int) -> bool:
    return error.msg.startswith("Unterminated string") or error.pos >= length - _LONGEST_LITERAL


def _blocks(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield decoder.decode(block)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken ({error}); copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from None
