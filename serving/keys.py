"""API keys: who may ask, and how much. Only their hashes are kept.

A key is 32 random bytes, so a plain SHA-256 is as good as a slow hash. The file is TOML:

    [[key]]
    name = "alice"
    sha256 = "..."             # `dynasor key alice` prints such an entry
    admin = false              # may also see the live page and the metrics
    requests_per_minute = 600
    concurrent = 32
    tokens_per_minute = 1000000
    max_priority = 0

Without a file, `DYNASOR_API_KEYS` and `DYNASOR_ADMIN_KEYS` hold keys, separated by commas.
"""

from __future__ import annotations

import hmac
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dynasor.errors import ConfigError

USERS, ADMINS = "DYNASOR_API_KEYS", "DYNASOR_ADMIN_KEYS"
SHORTEST = 16
"""Characters of a key that somebody chose."""
_LARGEST_FILE = 1 << 20


class Key(BaseModel):
    """One key and its limits; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    admin: bool = False
    requests_per_minute: float | None = Field(None, gt=0)
    concurrent: int | None = Field(None, ge=1)
    tokens_per_minute: float | None = Field(None, gt=0)
    max_priority: int = Field(0, ge=-8, le=8)


class Keys:
    """All keys of the server; empty where anybody may ask."""

    def __init__(self, keys: list[Key]) -> None:
        names = [key.name for key in keys]
        if len(set(names)) < len(names):
            raise ConfigError("two API keys have the same name: give each its own")
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: str) -> Key | None:
        """The key, in a time that does not tell how much of it was right."""
        given = hash_of(secret)
        found = None
        for key in self._keys:  # always all of them
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found


def hash_of(secret: str) -> str:
    """How a key is kept."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A fresh key."""
    return f"dyn-{token_urlsafe(32)}"


def load_keys(path: Path | None, environment: Mapping[str, str]) -> Keys:
    """Keys of the file, or else of the environment.

    Raises:
        ConfigError: naming the file, the entry and what is wrong; never a key.
    """
    if path is not None:
        return Keys([_entry(path, number, entry) for number, entry in enumerate(_entries(path), 1)])
    keys = []
    for variable, admin in ((USERS, False), (ADMINS, True)):
        secrets = [secret.strip() for secret in environment.get(variable, "").split(",")]
        for number, secret in enumerate(filter(None, secrets), 1):
            if len(secret) < SHORTEST:
                raise ConfigError(
                    f"{variable}: key {number} is shorter than {SHORTEST} characters; "
                    "`dynasor key NAME` makes a good one"
                )
            name = f"{'admin' if admin else 'user'}-{number}"
            keys.append(Key(name=name, sha256=hash_of(secret), admin=admin))
    return Keys(keys)


def _entries(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {_LARGEST_FILE} bytes; is it a file of keys?")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    entries = content.get("key")
    if not isinstance(entries, list) or not entries or len(content) > 1:
        raise ConfigError(f"{path}: a file of keys has [[key]] entries, at least one, and no more")
    return entries


def _entry(path: Path, number: int, entry: Any) -> Key:
    try:
        return Key.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"{path}: key {number}: {field}: {problem['msg']}") from None
