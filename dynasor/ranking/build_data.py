"""A data folder: the examples of a source in three splits, and a card that says what they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dynasor.errors import DataError
from dynasor.ranking.dataset import (
    SPLITS,
    TEST_SHARE,
    VALIDATION_SHARE,
    Split,
    example_line,
    read_examples,
    split_of,
)
from dynasor.ranking.examples import LengthExample

CARD = "card.json"
FORMAT = "dynasor rank data"
VERSION = 1


def build_data(
    examples: Iterable[LengthExample],
    out: Path,
    about: dict[str, Any],
    left_out: Counter[str],
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Write `train.jsonl`, `validation.jsonl`, `test.jsonl` and `card.json`; returns the card.

    The files get their names when all is written, so a run that was stopped leaves no half folder.

    Args:
        examples: of a source, streamed.
        out: the folder; a data folder that is there already is replaced.
        about: what the card says of source and tokenizer.
        left_out: counts of what gave no example, by reason; read at the end.
        progress: told the number of examples so far.

    Raises:
        DataError: if the folder holds something else, cannot be written, or no example came.
    """
    _check_free(out)
    counts = _Counts()
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as stack:
                files = {s: stack.enter_context(_part(out, s).open("wb")) for s in SPLITS}
                for number, example in enumerate(examples, 1):
                    split = split_of(example.conversation)
                    files[split].write(example_line(example))
                    counts.add(split, example)
                    progress(number)
            if not counts.tokens:
                raise DataError("the source gave no example; is it the right file?")
            (out / CARD).unlink(missing_ok=True)
            for split in SPLITS:
                os.replace(_part(out, split), split_file(out, split))
        finally:
            for split in SPLITS:
                _part(out, split).unlink(missing_ok=True)
        card = _card(about, counts, left_out)
        (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); check the path") from None
    return card


def split_file(folder: Path, split: Split) -> Path:
    """The file of a split in a data folder."""
    return folder / f"{split}.jsonl"


def read_split(data: Path, split: Split) -> list[LengthExample]:
    """Examples of a data folder's split, or of a data file, which is one split as it is.

    Raises:
        DataError: naming file, line and field; or if there is no such file.
    """
    return read_examples(split_file(data, split) if data.is_dir() else data)


def read_data_card(data: Path) -> dict[str, Any]:
    """The card of a data folder.

    Raises:
        DataError: if it is missing or wrong.
    """
    path = data / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); make the folder with `dynasor rank build-data`"
        ) from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DataError(f"{path}: not the card of a data folder")
    return card


class _Counts:
    def __init__(self) -> None:
        self.tokens: list[float] = []
        self.examples: Counter[Split] = Counter()
        self.first_turns: Counter[Split] = Counter()
        self.groups: dict[Split, set[str]] = {split: set() for split in SPLITS}
        self.cut = 0
        self.samples = 0

    def add(self, split: Split, example: LengthExample) -> None:
        self.tokens.append(example.tokens)
        self.examples[split] += 1
        self.first_turns[split] += example.turn == 0
        self.groups[split].add(example.conversation)
        self.cut += example.cut > 0
        self.samples += example.samples


def _card(about: dict[str, Any], counts: _Counts, left_out: Counter[str]) -> dict[str, Any]:
    marks = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    return {
        "format": FORMAT,
        "version": VERSION,
        **about,
        "examples": {split: counts.examples[split] for split in SPLITS},
        "first_turns": {split: counts.first_turns[split] for split in SPLITS},
        "conversations": {split: len(counts.groups[split]) for split in SPLITS},
        "answers": counts.samples,
        "tokens": {
            f"{mark:.0%}": round(float(value), 1)
            for mark, value in zip(marks, np.quantile(counts.tokens, marks), strict=True)
        },
        "examples_with_cut_answers": counts.cut,
        "cut_answers": "their length is a lower bound: only orders that are sure count",
        "left_out": dict(left_out.most_common()),
        "split": f"by a hash (SHA-256) of the conversation: {TEST_SHARE:.0%} test, "
        f"{VALIDATION_SHARE:.0%} validation; conversations that begin alike are one",
    }


def _part(out: Path, split: Split) -> Path:
    return out / f"{split}.jsonl.part"


def _check_free(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder")
    if any(out.iterdir()) and not _is_ours(out):
        raise DataError(f"{out}: holds other files; give an empty or a new folder")


def _is_ours(out: Path) -> bool:
    names = {file.name for file in out.iterdir()}
    if names <= {_part(out, split).name for split in SPLITS}:
        return True  # what a killed run left
    try:
        read_data_card(out)
    except DataError:
        return False
    return True
