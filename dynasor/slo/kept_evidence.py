"""What a server knows of its promises, on the disk, so that one that starts anew goes on with it.

One JSON file, replaced as a whole. Of each class: its alarms and the setting to which they have led, the
counts of its audits, the live queries of the drift watches with what their bettors have won, and the
tokens of the day. It belongs to the promise, calibration and program that it says it is about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dynasor.errors import DataError
from dynasor.slo.drift import Begun
from dynasor.slo.promise import MOST_CLASSES
from dynasor.slo.rungs import MOST_RUNGS
from dynasor.slo.traits import Traits
from dynasor.whole_file import replace_text

LARGEST_FILE = 256 << 20
MOST_LIVE = 1_000_000
_TRAITS = len(Traits._fields)
_Count = Annotated[int, Field(ge=0)]
_Live = Annotated[tuple[float, ...], Field(max_length=MOST_LIVE)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class KeptDrift(_Part):
    """The watch over one setting.

    Attributes:
        level: rung of the setting.
        live, capital: see `Begun`.
    """

    level: int = Field(ge=0, lt=MOST_RUNGS)
    live: tuple[_Live, ...] = Field(min_length=_TRAITS, max_length=_TRAITS)
    capital: tuple[float, ...] = Field(min_length=_TRAITS, max_length=_TRAITS)

    @model_validator(mode="after")
    def _as_many_of_each(self) -> Self:
        if len({len(values) for values in self.live}) != 1:
            raise ValueError("live: there must be as many values of each trait")
        return self

    @property
    def begun(self) -> Begun:
        """For a watch that goes on with it."""
        return Begun(self.live, self.capital)


class KeptClass(_Part):
    """One class.

    Attributes:
        about: digest of what the evidence is about.
        alarms: in words, oldest first.
        round: how often the class has fallen back.
        place: of its setting among the certified ones.
        wave: of that setting.
        differed, same, dropped: audits since it last fell back.
        drift: watches over its ladder.
        day: since 1970.
        spent: output tokens of that day.
    """

    about: str = Field(max_length=100)
    alarms: tuple[str, ...] = Field(max_length=1000)
    round: _Count
    place: _Count
    wave: int = Field(ge=1, le=1024)
    differed: _Count
    same: _Count
    dropped: _Count
    drift: tuple[KeptDrift, ...] = Field(max_length=MOST_RUNGS)
    day: _Count
    spent: _Count


class KeptEvidence(_Part):
    """The whole file.

    Attributes:
        version: of the format.
        classes: name -> what is known of it.
    """

    version: Literal[1] = 1
    classes: dict[str, KeptClass] = Field(max_length=MOST_CLASSES)

    def save(self, path: Path) -> None:
        """Write a file that `load` understands; an older one stays whole until the new one is.

        Raises:
            OSError: if it cannot be written.
        """
        replace_text(path, self.model_dump_json() + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is none.
            DataError: if it is something else, or cannot be read.
        """
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise DataError(f"it is larger than {LARGEST_FILE} bytes")
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(": ".join(filter(None, [where, first["msg"]]))) from None
        except UnicodeDecodeError:
            raise DataError("it is not a text") from None
        except OSError as error:
            raise DataError(f"it cannot be read ({error.strerror})") from None
