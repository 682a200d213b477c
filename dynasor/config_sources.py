"""Where settings come from, a TOML file and the environment, and how one source goes over another."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynasor.errors import ConfigError

PREFIX = "DYNASOR_"
BESIDE = (("slo", "calibration"), ("slo", "watch", "file"))
"""Settings that name a file beside the one that they stand in, so that a tuned folder can be moved."""
LARGEST_FILE = 1 << 20


def from_file(path: Path, sections: Sequence[str]) -> dict[str, Any]:
    """The settings in a TOML file.

    Args:
        path: of the file.
        sections: that there are, for the message.

    Raises:
        ConfigError: if it cannot be read, is no TOML, or has something beside sections.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE} bytes; is it a TOML file?")
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    for section, values in settings.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: {section!r} must be a section; sections are "
                + ", ".join(f"[{name}]" for name in sections)
            )
    for keys in BESIDE:
        _put_beside(settings, keys, path.parent)
    return settings


def _put_beside(settings: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Read a setting as the path of a file in a folder, where it is there and relative."""
    *sections, last = keys
    inner: Any = settings
    for name in sections:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get(last), str):
        inner[last] = str(folder / inner[last])


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in variables of ours, e.g. DYNASOR_ALLOCATOR__WAVE=4."""
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if name.startswith(PREFIX) and "__" in name:
            merge(found, nested(name.removeprefix(PREFIX).lower().split("__"), value))
    return found


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """{first: {second: ... value}}."""
    for key in reversed(keys):
        value = {key: value}
    settings: dict[str, Any] = value
    return settings


def merge(into: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Put settings over others, section by section; None is no setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            below = into.get(key)
            into[key] = dict(below) if isinstance(below, dict) else {}
            merge(into[key], value)
            if not into[key] and below is None:
                del into[key]
        elif value is not None:
            into[key] = value
