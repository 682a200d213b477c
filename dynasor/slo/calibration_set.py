"""What `dynasor tune` leaves for the service: the queries it calibrated on, and what it certified.

One JSON file. For each class of `[slo]`: what was promised, every setting that is certified to keep it,
from the safest to the boldest, which of them was chosen, and for each calibrated query how it ends
under the chosen one. The service compares live queries with these (drift), and moves between certified
settings only: to a safer one where the bound no longer holds, to a bolder one under overload.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dynasor.errors import DataError
from dynasor.slo.promise import MOST_CLASSES, ClassSettings, Guarantee, LossKind
from dynasor.slo.traits import Traits
from dynasor.whole_file import replace_text

LARGEST_FILE = 64 << 20
MOST_QUERIES = 100_000
MOST_SETTINGS = 1_000
COMPARED = 2_000
"""Queries whose ends are kept of settings that were not chosen, at most."""

_Share = Annotated[float, Field(ge=0, le=1)]
_Number = Annotated[float, Field(ge=0)]
_End = tuple[_Share, _Share, _Number, _Number]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class CalibratedQuery(_Part):
    """How one query of the calibration ends under the chosen setting, in one random order.

    Attributes:
        id: of the recorded query.
        certainty: agreement certaindex of the votes at the stop; 0 below two answers.
        agreement: votes of the leading answer over finished samples.
        samples: finished ones.
        tokens: output tokens, those of cut samples included.
        sample_tokens: mean output tokens of the finished samples.
        differed: whether its answer differs from the full budget's.
        loss: as promised: 0 or 1 for `answer`, -1, 0 or 1 for `accuracy`.
    """

    id: str = Field(max_length=500)
    certainty: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)
    samples: int = Field(ge=1, le=1024)
    tokens: int = Field(ge=0)
    sample_tokens: float = Field(ge=0)
    differed: bool
    loss: float = Field(ge=-1, le=1)

    @property
    def traits(self) -> Traits:
        """What live queries are compared by."""
        return Traits(self.certainty, self.agreement, self.samples, self.sample_tokens)


class CertifiedSetting(_Part):
    """A setting that is certified to keep the promised loss; all of a class hold at once.

    Attributes:
        settings: rule, samples and wave.
        loss: mean over the calibrated queries.
        bound: upper bound of the true loss at confidence 1 - delta, for this setting alone.
        p_value: of the hypothesis that the true loss exceeds epsilon; 0 for the full budget itself.
            In a guarantee of the mean it is no part of the proof.
        tokens: output tokens a query in the mean, those of cut samples included.
        samples: finished samples a query in the mean.
        ended: `Traits` of calibrated queries under it; none of the chosen one, which has them in full,
            and of the full budget, under which nothing is lost.
    """

    settings: ClassSettings
    loss: float = Field(ge=-1, le=1)
    bound: float = Field(ge=-1, le=1)
    p_value: float = Field(ge=0, le=1)
    tokens: float = Field(ge=0)
    samples: float = Field(ge=0)
    ended: tuple[_End, ...] = Field((), max_length=COMPARED)


class ClassCalibration(_Part):
    """What was calibrated of one class.

    Attributes:
        full_samples: full budget against which losses are, samples a query.
        loss: what epsilon bounds.
        epsilon: most loss that is promised.
        guarantee: with confidence 1 - delta, or in the mean over calibrations.
        delta: chance that it is broken.
        certified: the settings that keep it, safest first; the first is the full budget itself.
        chosen: index of the one that was chosen.
        queries: under the chosen one.
    """

    full_samples: int = Field(ge=1, le=1024)
    loss: LossKind
    epsilon: float = Field(gt=0, le=1)
    guarantee: Guarantee
    delta: float = Field(gt=0, lt=1)
    certified: tuple[CertifiedSetting, ...] = Field(min_length=1, max_length=MOST_SETTINGS)
    chosen: int = Field(ge=0)
    queries: tuple[CalibratedQuery, ...] = Field(min_length=1, max_length=MOST_QUERIES)

    @model_validator(mode="after")
    def _chosen_is_certified(self) -> Self:
        if self.chosen >= len(self.certified):
            raise ValueError(f"chosen = {self.chosen}: there are {len(self.certified)} settings")
        return self

    @property
    def setting(self) -> CertifiedSetting:
        """The chosen one."""
        return self.certified[self.chosen]

    def reference(self, place: int) -> list[Traits]:
        """Traits of the calibrated queries under a certified setting; none where they were not kept."""
        if place == self.chosen:
            return [query.traits for query in self.queries]
        return [Traits(*end) for end in self.certified[place].ended]


class CalibrationSet(_Part):
    """The whole file.

    Attributes:
        version: of the format.
        model: of the engine whose step times were measured.
        rate: queries a second for which latency was promised, or None.
        classes: name -> calibration.
    """

    version: Literal[1] = 1
    model: str = Field(max_length=500)
    rate: float | None = Field(gt=0)
    classes: dict[str, ClassCalibration] = Field(min_length=1, max_length=MOST_CLASSES)

    def save(self, path: Path) -> None:
        """Write a file that `load` understands; an older file stays whole until the new one is.

        Raises:
            DataError: if it cannot be written.
        """
        try:
            replace_text(path, self.model_dump_json() + "\n")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); check the path"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: naming file, field, value and what is allowed.
        """
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise DataError(
                    f"{path}: larger than {LARGEST_FILE} bytes; is it a calibration set?"
                )
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); `dynasor tune` makes it"
            ) from None
        except UnicodeDecodeError:
            raise DataError(f"{path}: not a text; `dynasor tune` makes it") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(
                f"{path}: {where}: {first['msg']} (is {json.dumps(first['input'], default=str)[:80]}); "
                "make it anew with `dynasor tune`"
            ) from None
