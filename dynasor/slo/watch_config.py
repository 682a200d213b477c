"""`[slo.watch]`: how the service sees that its promises hold, and what it does when they do not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dynasor.program_config import Section


class WatchConfig(Section):
    """`[slo.watch]`."""

    risk: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="chance of a false alarm, for each class: of drift in a period, and of the audited "
        "loss ever",
    )
    period: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="queries after which the watch for drift begins anew",
    )
    fallback: Literal["full", "safer"] = Field(
        "full",
        description="what serves a class after an alarm; full: the full budget; safer: the next safer "
        "certified setting, and the one before it after the next alarm",
    )
    audits: int = Field(2, ge=1, le=1024, description="audits that are open at once, at most")
    file: str | None = Field(
        None,
        description="JSON file in which alarms, evidence and the tokens of the day are kept, for a "
        "server that starts anew; none if not set",
    )
    control: bool = Field(
        True,
        description="under overload use bolder certified settings, then refuse early with 429",
    )
