"""Chains with their probes on disk, so that a run can be killed at any time and go on.

run.json      what was run; the same command finds it again
chains.jsonl  each finished chain: its probes, what they answered and whether that was right
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from algorithms.dynasor_cot import Probe
from dynasor.errors import RunError
from dynasor.run_folder import RUN, claim_folder, open_for_lines

CHAINS = "chains.jsonl"


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain that was run to its end, with its probes.

    Attributes:
        query: id.
        probes: in order.
        right: whether each probe's answer is right.
        tokens: of the whole chain, probes not included.
        final_right: whether the answer at its end is.
    """

    query: str
    probes: tuple[Probe, ...]
    right: tuple[bool, ...]
    tokens: int
    final_right: bool

    @classmethod
    def read(cls, line: bytes) -> Self:
        """A chain from its line of the file.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        row = json.loads(line)
        probes = tuple(Probe(*probe) for probe in row["probes"])
        right = tuple(bool(one) for one in row["right"])
        if len(right) != len(probes):
            raise ValueError("a probe without its mark")
        return cls(row["query"], probes, right, int(row["tokens"]), bool(row["final_right"]))


class ChainFolder:
    """Opens a folder for one run, new or to go on with; use it as a context manager.

    Args:
        path: the folder, made where it is missing.
        settings: what the run is; a folder that holds another run is refused.
        fresh: throw an earlier run in this folder away.

    Attributes:
        chains: query -> its finished chain.

    Raises:
        RunError: if the folder holds another run, or cannot be read or written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.chains: dict[str, Chain] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            if fresh:
                for name in (RUN, CHAINS):
                    (path / name).unlink(missing_ok=True)
            claim_folder(path, settings)
            self._file = open_for_lines(path / CHAINS)
        except OSError as error:
            raise RunError(f"cannot write to {path}: {error.strerror}") from error
        try:
            self._load()
        except RunError:
            self._file.close()
            raise

    def _load(self) -> None:
        file = self.path / CHAINS
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                chain = Chain.read(line)
            except (ValueError, KeyError, TypeError):
                raise RunError(
                    f"{file}, line {number} is damaged; remove the line to run that question again"
                ) from None
            self.chains[chain.query] = chain

    def write(self, chain: Chain) -> None:
        """Append a chain.

        Raises:
            RunError: if the disk is full or gone.
        """
        try:
            self._file.write(json.dumps(asdict(chain), ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {error.strerror}") from error
        self.chains[chain.query] = chain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
