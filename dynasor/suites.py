"""Benchmark suites: the embedded problems, a file, or a data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from os.path import isdir, isfile  # unlike pathlib's, these never raise
from pathlib import Path
from typing import Any

from certaindex.answers import extract
from dynasor.embedded_model import test_suite
from dynasor.errors import DataError
from dynasor.suite_files import SUFFIXES, file_rows
from dynasor.suite_hub import KNOWN, HubSuite, hub_rows, hub_suite

LONGEST_QUESTION = 200_000
LONGEST_ID = 200
MOST_QUERIES = 1_000_000

# By their usual names, in any case.
_QUESTION_FIELDS = ("question", "problem", "prompt", "input", "query_text")
_ANSWER_FIELDS = ("answer", "gold", "target", "final_answer", "solution")
_ID_FIELDS = ("id", "unique_id", "query")
_META_FIELDS = ("level", "family", "subject")


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes:
        id: unique in its suite.
        question: what is asked.
        gold: the right answer, or None where it is not known.
        meta: further fields of the source, such as a level.
    """

    id: str
    question: str
    gold: str | None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Questions, and how their answers are read.

    Attributes:
        name: for tables and folders.
        queries: the questions.
        extractor: how answers are read out of a text; see `certaindex.answers`.
    """

    name: str
    queries: tuple[Query, ...]
    extractor: str


def load_suite(
    spec: str,
    *,
    limit: int | None = None,
    split: str | None = None,
    question_field: str | None = None,
    answer_field: str | None = None,
) -> Suite:
    """Load a suite.

    Args:
        spec: `embedded`, a `.jsonl`, `.jsonl.gz` or `.json` file, a known name, `owner/name` or
            `owner/name:config` of a hub data set, or a folder with a data set.
        limit: only the first so many questions; what comes after them is not looked at.
        split: of a hub data set.
        question_field, answer_field: names of the fields; found by their usual names if not given.

    Raises:
        DataError: naming file, line, field and what to do.
        MissingExtra: if a hub data set is asked for without the `datasets` package.
    """
    if limit is not None and limit < 1:
        raise DataError(f"--limit = {limit}: must be 1 or more")
    name, source = _source(spec)
    if isinstance(source, HubSuite):
        question_field = question_field or source.question_field
        answer_field = answer_field or source.answer_field
        rows = hub_rows(source, split)
    elif split is not None:
        raise DataError(f"--split = {split}: {spec} has no splits; leave it out")
    else:
        rows = file_rows(source)
    reader = _Reader(name, question_field, answer_field)
    queries = tuple(islice((reader.query(row, where) for row, where in rows), limit))
    if not queries:
        raise DataError(f"{spec}: holds no questions")
    return Suite(name, queries, "boxed" if spec == "embedded" else "math")


def _source(spec: str) -> tuple[str, Path | HubSuite]:
    """The name of a suite, and the file or the data set that holds it."""
    if spec == "embedded":
        return spec, test_suite()
    path = Path(spec)
    if spec.endswith(SUFFIXES):
        if not isfile(spec):
            raise DataError(f"{spec}: there is no such file")
        suffix = next(suffix for suffix in SUFFIXES if spec.endswith(suffix))
        return path.name.removesuffix(suffix), path
    if spec in KNOWN:
        return spec, KNOWN[spec]
    if isdir(spec):
        return path.resolve().name, HubSuite(spec)
    known = hub_suite(spec)
    if known is None or isfile(spec):
        raise DataError(
            f"no suite {spec!r}: give embedded, a file that ends in {', '.join(SUFFIXES)}, one of "
            f"{', '.join(KNOWN)}, or owner/name of a Hugging Face data set"
        )
    return spec.replace("/", "-").replace(":", "-"), known


class _Reader:
    """Turns rows into queries; remembers the ids it has seen."""

    def __init__(self, suite: str, question_field: str | None, answer_field: str | None) -> None:
        self._suite = suite
        self._question_field = question_field
        self._answer_field = answer_field
        self._seen: dict[str, str] = {}

    def query(self, row: Any, where: str) -> Query:
        """One query; `where` names its place for errors."""
        if not isinstance(row, dict):
            raise DataError(f"{where}: must be a JSON object, not {type(row).__name__}")
        if len(self._seen) >= MOST_QUERIES:
            raise DataError(f"{where}: more than {MOST_QUERIES} questions; use --limit")
        usual = {key.lower(): key for key in reversed(row)}
        question = self._question(row, usual, where)
        gold = self._gold(row, usual, where)
        name = self._id(row, usual, where)
        return Query(name, question, gold, {key: row[key] for key in _META_FIELDS if key in row})

    def _question(self, row: dict[str, Any], usual: dict[str, str], where: str) -> str:
        given = self._question_field
        fields = [given] if given else [usual[f] for f in _QUESTION_FIELDS if f in usual]
        if not fields or fields[0] not in row:
            wanted = _absent("question", given, _QUESTION_FIELDS, row)
            raise DataError(f"{where}: {wanted}")
        question = row[fields[0]]
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: field {fields[0]!r} must be a text that is not empty")
        if len(question) > LONGEST_QUESTION:
            raise DataError(
                f"{where}: field {fields[0]!r} is longer than {LONGEST_QUESTION} characters"
            )
        return _encodable(question.strip(), fields[0], where)

    def _gold(self, row: dict[str, Any], usual: dict[str, str], where: str) -> str | None:
        """The answer; None where the row has none, unless its field was named."""
        given = self._answer_field
        if given and given not in row:
            raise DataError(f"{where}: {_absent('answer', given, _ANSWER_FIELDS, row)}")
        for name in [given] if given else [usual[f] for f in _ANSWER_FIELDS if f in usual]:
            if (answer := row[name]) is None:
                continue
            if isinstance(answer, bool) or not isinstance(answer, str | int | float):
                raise DataError(
                    f"{where}: field {name!r} must be a text or a number, not "
                    f"{type(answer).__name__}; name another with --answer-field"
                )
            gold = _final_answer(answer, worked=name.lower() == "solution")
            if gold is not None:
                return _encodable(gold, name, where)
        return None

    def _id(self, row: dict[str, Any], usual: dict[str, str], where: str) -> str:
        fields = [usual[f] for f in _ID_FIELDS if f in usual and row[usual[f]] is not None]
        # Where a file has no ids, the place in it: the same file gives the same ids anywhere.
        name = str(row[fields[0]]) if fields else f"{self._suite}-{len(self._seen)}"
        if not 0 < len(name) <= LONGEST_ID or not name.isprintable():
            raise DataError(
                f"{where}: field {fields[0]!r} must have 1 to {LONGEST_ID} printable characters"
            )
        if name in self._seen:
            raise DataError(
                f"{where}: the id {name!r} was already used at {self._seen[name]}; "
                "make it unique or remove one of them"
            )
        self._seen[name] = where
        return name


def _absent(what: str, given: str | None, usual: Iterable[str], row: Mapping[str, Any]) -> str:
    wanted = f"no field {given!r}" if given else f"no {what} (looked for {', '.join(usual)})"
    has = ", ".join(str(key)[:40] for key in list(row)[:12]) or "no fields"
    return f"{wanted}; it has {has}; name it with --{what}-field"


def _final_answer(answer: str | float, *, worked: bool) -> str | None:
    """The final answer within a reference answer; a worked solution without one has none."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer).strip()
    if (after_hashes := extract(text, "gsm8k")) is not None:
        return after_hashes.replace(",", "")
    return extract(text, "boxed") or (None if worked else text or None)


def _encodable(text: str, name: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: field {name!r} holds half of a character pair; mend it"
        ) from None
    return text
