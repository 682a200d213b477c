"""A ranker that is the mean of others: where they err differently, it orders better than each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dynasor.errors import DataError
from dynasor.ranking.model_folder import CARD, TRAINING, load_ranker, ranker_names, read_card
from dynasor.ranking.ranker import Ranker

_SUBFOLDER = re.compile(r"member-\d+")


class Member(NamedTuple):
    """One of the blended rankers.

    Attributes:
        source: name of a ranker that comes with the package, or its folder.
        ranker: the ranker.
        centre: mean of its scores on held-out prompts.
        scale: their standard deviation.
    """

    source: str
    ranker: Ranker
    centre: float
    scale: float


class BlendRanker:
    """The mean of the scores of its members, each in standard deviations from its mean; see `Ranker`."""

    def __init__(self, members: Sequence[Member], name: str = "blend") -> None:
        self._members = list(members)
        self.name = name

    @classmethod
    def fit(cls, sources: Sequence[str], prompts: Sequence[str]) -> Self:
        """A blend of rankers whose scales are taken from prompts that none of them was trained on.

        Args:
            sources: names or folders, for `load_ranker`.
            prompts: held-out ones.

        Raises:
            DataError: if a ranker cannot be loaded, is a blend itself, or gives all prompts one score.
        """
        members = []
        for source in sources:
            ranker = load_ranker(source)
            if isinstance(ranker, BlendRanker):
                raise DataError(f"{source} is a blend itself; give its members")
            scores = ranker.score(prompts)
            if not np.ptp(scores) > 0:
                raise DataError(f"{source} gives all held-out prompts the same score; leave it out")
            members.append(Member(source, ranker, float(scores.mean()), float(scores.std())))
        return cls(members)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """One finite score a prompt, shape `(len(prompts),)`, higher for longer answers."""
        total = np.zeros(len(prompts))
        for member in self._members:
            total += (member.ranker.score(prompts) - member.centre) / member.scale
        return total / len(self._members)

    def save(self, folder: Path) -> list[dict[str, Any]]:
        """Copy the members that do not come with the package; returns the card's field `members`."""
        fields = []
        for number, member in enumerate(self._members):
            source = member.source
            if source not in ranker_names():
                source = f"member-{number}"
                ignored = shutil.ignore_patterns(TRAINING)
                shutil.copytree(member.source, folder / source, ignore=ignored)
            fields.append({"source": source, "centre": member.centre, "scale": member.scale})
        return fields

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The ranker of a folder with a card.

        Raises:
            DataError: if the card is damaged, or a member cannot be loaded.
        """
        members = []
        try:
            card = read_card(folder)
            for fields in card["members"]:
                source, centre = str(fields["source"]), float(fields["centre"])
                scale = float(fields["scale"])
                if not (np.isfinite(centre) and np.isfinite(scale) and scale > 0):
                    raise ValueError("centre and scale must be numbers, scale above 0")
                members.append((source, centre, scale))
            if not members:
                raise ValueError("no members")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder / CARD} does not describe a blend ({error}); blend it again"
            ) from None
        return cls(
            [
                Member(source, load_ranker(_place(folder, source)), centre, scale)
                for source, centre, scale in members
            ],
            card["name"],
        )


def _place(folder: Path, source: str) -> str | Path:
    if source in ranker_names():
        return source
    if not _SUBFOLDER.fullmatch(source):
        raise DataError(f"{folder / CARD}: member {source!r} is none of this blend; blend it again")
    return folder / source
