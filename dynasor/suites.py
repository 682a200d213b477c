"""Benchmark suites: the embedded problems, a file, or a data set of the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from algorithms.program import Message
from certaindex.answers import extract
from dynasor.embedded_model import test_suite
from dynasor.errors import DataError, MissingExtra

LARGEST_FILE = 4 << 30
"""Bytes; more is a training set, not a benchmark."""
LONGEST_LINE = 16 << 20
LONGEST_QUESTION = 200_000
MOST_QUERIES = 1_000_000

GENERAL_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_QUESTION_FIELDS = ("question", "problem", "prompt", "input", "query_text")
_ANSWER_FIELDS = ("answer", "gold", "target", "final_answer", "solution")
_ID_FIELDS = ("id", "unique_id", "query")


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
    """Questions, and how they are asked and read.

    Attributes:
        name: for tables and folders.
        queries: the questions.
        extractor: how answers are read out of a text; see `certaindex.answers`.
        instruction: is added to each question.
    """

    name: str
    queries: tuple[Query, ...]
    extractor: str
    instruction: str

    def prompt(self, query: Query) -> tuple[Message, ...]:
        """The chat that asks a question."""
        text = f"{query.question}\n\n{self.instruction}" if self.instruction else query.question
        return ({"role": "user", "content": text},)


class HubSuite(NamedTuple):
    """Where a known suite is on the hub, and which fields it has."""

    repository: str
    config: str | None
    split: str
    question_field: str
    answer_field: str


KNOWN: dict[str, HubSuite] = {
    "gsm8k": HubSuite("openai/gsm8k", "main", "test", "question", "answer"),
    "math500": HubSuite("HuggingFaceH4/MATH-500", None, "test", "problem", "answer"),
    "aime2024": HubSuite("HuggingFaceH4/aime_2024", None, "train", "problem", "answer"),
    "amc2023": HubSuite("math-ai/amc23", None, "test", "question", "answer"),
}


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
        spec: `embedded`, a `.jsonl`, `.jsonl.gz` or `.json` file, a known name, or `owner/name`.
        limit: only the first so many questions.
        split: of a hub data set.
        question_field, answer_field: names of the fields; found by their usual names if not given.

    Raises:
        DataError: naming file, line, field and what to do.
        MissingExtra: if a hub data set is asked for without the `datasets` package.
    """
    if limit is not None and limit < 1:
        raise DataError(f"--limit = {limit}: must be 1 or more")
    if spec == "embedded":
        name, rows = "embedded", _file_rows(test_suite())
        extractor, instruction = "boxed", ""
    elif Path(spec).is_file():
        path = Path(spec)
        name, rows = path.name.split(".")[0], _file_rows(path)
        extractor, instruction = "math", GENERAL_INSTRUCTION
    elif spec in KNOWN or re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
        known = KNOWN.get(spec) or HubSuite(spec, None, "test", "", "")
        name, rows = spec.replace("/", "-"), _hub_rows(known, split)
        question_field = question_field or known.question_field or None
        answer_field = answer_field or known.answer_field or None
        extractor, instruction = "math", GENERAL_INSTRUCTION
    else:
        raise DataError(
            f"no suite {spec!r}: give embedded, a .jsonl file that exists, one of "
            f"{', '.join(KNOWN)}, or owner/name of a Hugging Face data set"
        )
    reader = _Reader(question_field, answer_field)
    queries = tuple(islice((reader.query(row, where) for row, where in rows), limit))
    if not queries:
        raise DataError(f"{spec}: holds no questions")
    return Suite(name, queries, extractor, instruction)


class _Reader:
    """Turns rows into queries; remembers the ids it has seen."""

    def __init__(self, question_field: str | None, answer_field: str | None) -> None:
        self._question_field = question_field
        self._answer_field = answer_field
        self._seen: dict[str, str] = {}

    def query(self, row: Any, where: str) -> Query:
        """One query; `where` names its place for errors."""
        if not isinstance(row, dict):
            raise DataError(f"{where}: must be a JSON object, not {type(row).__name__}")
        question = self._field(row, where, self._question_field, _QUESTION_FIELDS, "question")
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: the question must be a text that is not empty")
        if len(question) > LONGEST_QUESTION:
            raise DataError(f"{where}: the question is longer than {LONGEST_QUESTION} characters")
        name = next((str(row[f]) for f in _ID_FIELDS if row.get(f) is not None), where)
        if name in self._seen:
            raise DataError(f"{where}: the id {name!r} was already used at {self._seen[name]}")
        if len(self._seen) >= MOST_QUERIES:
            raise DataError(f"{where}: more than {MOST_QUERIES} questions; use --limit")
        self._seen[name] = where
        has_answer = self._answer_field or any(f in row for f in _ANSWER_FIELDS)
        answer = (
            self._field(row, where, self._answer_field, _ANSWER_FIELDS, "answer")
            if has_answer
            else None
        )
        meta = {key: row[key] for key in ("level", "family", "subject") if key in row}
        return Query(name, question.strip(), _gold(answer), meta)

    def _field(
        self, row: dict[str, Any], where: str, name: str | None, usual: Iterable[str], what: str
    ) -> Any:
        for candidate in (name,) if name else usual:
            if candidate in row:
                return row[candidate]
        wanted = f"no field {name!r}" if name else f"no {what} (looked for {', '.join(usual)})"
        raise DataError(
            f"{where}: {wanted}; it has {', '.join(map(str, list(row)[:12]))}; "
            f"name it with --{what}-field"
        )


def _gold(answer: Any) -> str | None:
    """The final answer within a reference answer or solution."""
    if answer is None:
        return None
    text = str(answer)
    for name in ("gsm8k", "boxed"):
        found = extract(text, name)
        if found is not None:
            return found.replace(",", "") if name == "gsm8k" else found
    return text.strip()


def _file_rows(path: Path) -> Iterator[tuple[Any, str]]:
    """Rows of a JSON Lines file, or of a JSON file that holds a list, each with its place."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: larger than {LARGEST_FILE} bytes")
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, list):
                raise DataError(f"{path}: must hold a list of questions")
            yield from ((row, f"{path}, item {n}") for n, row in enumerate(content, 1))
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE} bytes")
                if line.strip():
                    yield _parse(line, f"{path}, line {number}"), f"{path}, line {number}"
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); mend or remove the line") from None


def _hub_rows(known: HubSuite, split: str | None) -> Iterator[tuple[Any, str]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtra(
            "data sets of the Hugging Face hub need one more package: "
            "pip install 'dynasor-llm[hub]'"
        ) from None
    part = split or known.split
    try:
        rows = load_dataset(known.repository, known.config, split=part)
    except Exception as error:  # datasets raises many kinds, for network, names and formats
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"cannot load {known.repository} (split {part}) from the Hugging Face hub: {reason}; "
            "without network, give a local .jsonl file instead"
        ) from None
    yield from ((dict(row), f"{known.repository} row {n}") for n, row in enumerate(rows, 1))
