"""A calibration: how fast and how large a real engine was, for the simulator."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.step_time import StepTime
from dynasor.errors import DataError
from dynasor.whole_file import replace_text

MOST = 10**9
"""Of any number but the seconds of a step."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `dynasor calibrate` writes.

    Attributes:
        model: that was served.
        hardware: on which.
        step_time: seconds of a step.
        steps: measured ones.
        per_request: seconds of a request that are not spent in steps: front end and transport.
        max_running, max_batched_tokens, kv_blocks, block_size: see `ReplicaSettings`.
    """

    model: str
    hardware: str
    step_time: StepTime
    steps: int
    per_request: float
    max_running: int
    max_batched_tokens: int
    kv_blocks: int
    block_size: int

    def replica(self) -> ReplicaSettings:
        """Settings of a simulated replica like it."""
        return ReplicaSettings(
            self.step_time,
            self.max_running,
            self.max_batched_tokens,
            self.kv_blocks,
            self.block_size,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write a file that `read` understands.

        Raises:
            DataError: if it cannot be written.
        """
        try:
            replace_text(path, json.dumps(self.to_json(), indent=2) + "\n")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); check the path"
            ) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            DataError: naming file, field, value and what is allowed.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); `dynasor calibrate --out {path}` makes it"
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: no calibration ({error}); `dynasor calibrate --out {path}` makes one"
            ) from None
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise DataError(f"{path}: must be an object with {', '.join(names)}")
        for what, odd in (
            ("lacks", set(names) - set(values)),
            ("knows no", set(values) - set(names)),
        ):
            if odd:
                raise DataError(
                    f"{path}: {what} {', '.join(sorted(odd))}; must be an object with {', '.join(names)}"
                )
        for name in ("model", "hardware"):
            if not isinstance(values[name], str):
                raise DataError(f"{path}: {name} must be a text, not {values[name]!r}")
        for name in names:
            if name not in ("model", "hardware", "step_time"):
                _check_number(values[name], name, path)
        try:
            step_time = StepTime.from_json(values.pop("step_time"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return cls(step_time=step_time, **values)


def _check_number(value: object, name: str, path: Path) -> None:
    kinds, least = ((int, float), 0) if name == "per_request" else (int, 1)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= MOST:
        raise DataError(
            f"{path}: {name} must be a {'whole ' if kinds is int else ''}number of {least} to "
            f"{MOST:,}, not {value!r:.40}"
        )
