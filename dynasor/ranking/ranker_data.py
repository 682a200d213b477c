"""What a ranker is trained on and judged by, out of a data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynasor.errors import DataError
from dynasor.ranking.build_data import read_split, split_file
from dynasor.ranking.dataset import Split
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.metrics import checked_tokens

HELD_OUT_MOST = 2_000
"""Held-out examples that a check scores; more of them would take longer than they tell."""


@dataclass(frozen=True, slots=True)
class RankerData:
    """What a ranker is trained on and judged by.

    Attributes:
        train: to learn from.
        held_out: to stop by and to calibrate on.
        test: to be judged by once, at the end; may be empty.
    """

    train: list[LengthExample]
    held_out: list[LengthExample]
    test: list[LengthExample]


def read_ranker_data(folder: Path, *, later_turns: int, seed: int) -> RankerData:
    """The examples of a data folder.

    Held-out and test examples are first turns where there are any, for those are what a new
    conversation is scheduled by.

    Args:
        folder: with `train.jsonl`, `validation.jsonl` and perhaps `test.jsonl`.
        later_turns: later turns to learn from besides the first ones, chosen at random.
        seed: of the choice.

    Raises:
        DataError: if a file is missing or wrong, or all lengths are the same.
    """
    if not folder.is_dir():
        raise DataError(f"no data folder {str(folder)!r}; make one with `dynasor rank build-data`")
    train, held_out = read_split(folder, "train"), read_split(folder, "validation")
    test = read_split(folder, "test") if split_file(folder, "test").exists() else []
    first = [example for example in train if example.turn == 0]
    later = [example for example in train if example.turn > 0]
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(later))[:later_turns].tolist()
    data = RankerData(
        first + [later[place] for place in sorted(chosen)],
        _first_turns(held_out)[:HELD_OUT_MOST],
        _first_turns(test),
    )
    splits: dict[Split, list[LengthExample]] = {"train": data.train, "validation": data.held_out}
    for split, examples in splits.items():
        try:
            checked_tokens([example.tokens for example in examples])
        except DataError as error:
            raise DataError(f"{split_file(folder, split)}: {error}") from None
    return data


def _first_turns(examples: list[LengthExample]) -> list[LengthExample]:
    return [example for example in examples if example.turn == 0] or examples
