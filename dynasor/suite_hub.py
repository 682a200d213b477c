"""Data sets of the Hugging Face hub, and those whose fields are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dynasor.errors import DataError, MissingExtra

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


class HubSuite(NamedTuple):
    """Where a suite is on the hub, and which fields it has; None where that must be found out."""

    repository: str
    config: str | None = None
    split: str = "test"
    question_field: str | None = None
    answer_field: str | None = None


KNOWN: dict[str, HubSuite] = {
    "gsm8k": HubSuite("openai/gsm8k", "main", "test", "question", "answer"),
    "math500": HubSuite("HuggingFaceH4/MATH-500", None, "test", "problem", "answer"),
    "aime2024": HubSuite("HuggingFaceH4/aime_2024", None, "train", "problem", "answer"),
    "amc2023": HubSuite("math-ai/amc23", None, "test", "question", "answer"),
}


def hub_suite(spec: str) -> HubSuite | None:
    """A known suite by its name, or any by `owner/name` or `owner/name:config`."""
    if spec in KNOWN:
        return KNOWN[spec]
    match = _NAME.fullmatch(spec)
    return HubSuite(match[1], match[2]) if match else None


def hub_rows(
    suite: HubSuite, split: str | None, *, files: str | None = None
) -> Iterator[tuple[Any, str]]:
    """Each row of a data set, and its place for errors.

    `suite.repository` may also be a folder that holds a data set, or the kind of `files`, which then
    are the data set.

    Raises:
        DataError: if it cannot be loaded.
        MissingExtra: if the `datasets` package is not there.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtra(
            "data sets of the Hugging Face hub need one more package: "
            "pip install 'dynasor-llm[hub]'"
        ) from None
    part = split or suite.split
    try:
        rows = load_dataset(suite.repository, suite.config, split=part, data_files=files)
    except Exception as error:  # datasets raises many kinds, for network, names and formats
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"cannot load {suite.repository} (split {part}) with the datasets package: {reason}; "
            "choose another with --split, or, without network, give a local .jsonl file instead"
        ) from None
    yield from ((dict(row), f"{suite.repository} row {n}") for n, row in enumerate(rows, 1))
