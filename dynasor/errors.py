"""Errors that a user of Dynasor can meet.

DynasorError
├── ConfigError       a setting is unknown, out of range or contradicts another
├── DataError         a file or a data set cannot be read, or a line of it is wrong
├── MissingExtra      something must be installed first
├── EngineError       the engine cannot start, or died
└── RunError          a run folder holds another run, or cannot be written
"""

from __future__ import annotations


class DynasorError(Exception):
    """Something that the user can understand and mend; shown without a traceback."""


class ConfigError(DynasorError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(DynasorError):
    """A file or a data set cannot be read, or a line of it is wrong."""


class MissingExtra(DynasorError):
    """Something must be installed first; the message holds the command."""


class EngineError(DynasorError):
    """The engine cannot start, or died."""


class RunError(DynasorError):
    """A run folder holds another run, or cannot be written."""
