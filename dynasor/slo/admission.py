"""How a query of a class is served, or why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dynasor.slo.load_control import Choice
from dynasor.slo.rungs import Rung

if TYPE_CHECKING:
    from dynasor.slo.class_watch import ClassWatch


class Refusal(NamedTuple):
    """Why a query is not served.

    Attributes:
        why: in words, for the client.
        code: short name.
        wait: seconds after which to come again.
    """

    why: str
    code: str
    wait: float


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """How a query of a class is served; each query has its own.

    Attributes:
        of: the class.
        setting: that serves it; None: its own, for the class has none.
        work: expected of it, tokens.
        full_samples: of the full budget, against which losses are.
        base: whether that is the base setting, and none for overload.
        round: of the watch that it belongs to.
        choice: of the load control.
        refusal: why the query is refused and seconds after which to come again; None: it is served.
        audit: whether it is to go on to the full budget after its answer.
    """

    of: ClassWatch
    setting: Rung | None
    work: float
    full_samples: int
    base: bool
    round: int
    choice: Choice
    refusal: Refusal | None
    audit: bool
