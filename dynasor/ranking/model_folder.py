"""A saved ranker: a folder with its weights and `card.json`, which says what it is and how good.

Fields of the card: `format`, `version`, `kind`, `name`, `files` (each weight file's SHA-256), and what
whoever trained it has to say: `data`, `metrics`, `backbone`, `licence`, `training`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from dynasor.errors import DataError, MissingExtra
from dynasor.ranking.ranker import Ranker

CARD = "card.json"
TRAINING = "training"
"""Folder with what a training that was stopped needs to go on; no part of the ranker."""
FORMAT = "dynasor ranker"
VERSION = 1
_LARGEST_CARD = 4 << 20

KINDS: dict[str, str] = {
    "cheap": "dynasor.ranking.cheap_ranker:CheapRanker",
    "encoder": "dynasor.ranking.encoder:EncoderRanker",
    "blend": "dynasor.ranking.blend:BlendRanker",
    "probe": "dynasor.ranking.probe:ProbeRanker",
}
"""Kind of a saved ranker -> module and class, which is imported when a folder of it is loaded."""

SHIPPED: dict[str, Path] = {
    name: Path(__file__).parent / "weights" / name for name in ("cheap", "encoder", "blend")
}
"""Rankers that come with the package."""
DEFAULT = "blend"
"""The one of them that orders best."""
PROMPT_LENGTH = "prompt-length"
"""The ranker that needs no weights."""


class SavedRanker(Protocol):
    """A class of rankers that are kept in folders."""

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Read the ranker of a folder whose card is of this kind.

        Raises:
            DataError: if a file is missing or wrong.
            MissingExtra: if a package is not there.
        """
        ...


def ranker_names() -> list[str]:
    """Rankers that need no path."""
    return [*SHIPPED, PROMPT_LENGTH]


def load_ranker(name: str | Path) -> Ranker:
    """A ranker by its name, or out of its folder.

    Args:
        name: one of `ranker_names()`, or the folder of a saved ranker.

    Raises:
        DataError: if there is no such folder, or it is corrupt, or holds something else.
        MissingExtra: if a package is not there.
    """
    if name == PROMPT_LENGTH:
        from dynasor.ranking.prompt_length import PromptLength

        return PromptLength()
    folder = SHIPPED.get(str(name), Path(name))
    card = read_card(folder)
    if card["kind"] not in KINDS:
        raise DataError(
            f"{folder / CARD}: field 'kind' is {card['kind']!r}, but this version knows "
            f"{', '.join(KINDS)}; was it saved by a newer version?"
        )
    _check_files(folder, card["files"])
    module, _, attribute = KINDS[card["kind"]].partition(":")
    try:
        kind: SavedRanker = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the ranker {str(name)!r} needs {error.name}: pip install 'dynasor-llm[rank]' "
            f"{error.name}, or take the ranker `cheap`"
        ) from None
    return kind.load(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a saved ranker.

    Raises:
        DataError: if the folder holds no ranker, or the card is wrong.
    """
    path = folder / CARD
    if not path.is_file():
        raise DataError(
            f"no ranker in {str(folder)!r}: it has no {CARD}; give the folder of a trained ranker, or "
            f"one of {', '.join(ranker_names())}"
        )
    try:
        with path.open("rb") as file:
            card = json.loads(file.read(_LARGEST_CARD))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); train the ranker again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DataError(f"{path}: not the card of a ranker; give the folder of a trained ranker")
    if card.get("version") != VERSION:
        raise DataError(
            f"{path}: field 'version' is {card.get('version')!r}, but this version reads {VERSION}"
        )
    for name, kind, says in (
        ("kind", str, "a text"),
        ("name", str, "a text"),
        ("files", dict, "an object"),
    ):
        if not isinstance(card.get(name), kind):
            raise DataError(f"{path}: field '{name}' must be {says}, not {card.get(name)!r:.80}")
    return card


def write_card(folder: Path, kind: str, name: str, about: Mapping[str, Any]) -> None:
    """Write the card of a ranker whose other files are in the folder already.

    It is written last and at once: a folder with a card is complete.

    Args:
        folder: of the ranker.
        kind: one of `KINDS`.
        name: for tables and logs.
        about: data, metrics, backbone, licence, training.

    Raises:
        DataError: if the folder cannot be written.
    """
    assert kind in KINDS, kind
    path = folder / CARD
    part = path.with_suffix(".json.part")
    try:
        files = {
            str(file.relative_to(folder)): _digest(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file not in (path, part) and not _of_training(file, folder)
        }
        fields = {"kind": kind, "name": name, "files": files}
        card = {"format": FORMAT, "version": VERSION} | dict(about) | fields
        part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); check the path") from None


def _of_training(file: Path, folder: Path) -> bool:
    return file.relative_to(folder).parts[0] == TRAINING


def _check_files(folder: Path, files: Mapping[str, Any]) -> None:
    for name, digest in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            raise DataError(f"{path}: is missing; copy or train the ranker again")
        try:
            found = _digest(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); check the path") from None
        if found != digest:
            raise DataError(f"{path}: is corrupt or was changed; copy or train the ranker again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
