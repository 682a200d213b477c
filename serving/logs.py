"""Logs as JSON, one object a line, each with the id of the request that it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
access = logging.getLogger("serving.access")
_PROPER = re.compile(r"[A-Za-z0-9._-]{1,64}")


def new_request_id(given: str | None) -> str:
    """The client's id if it is a proper one, or a fresh one."""
    if given is not None and _PROPER.fullmatch(given):
        return given
    return uuid4().hex


class JsonFormatter(logging.Formatter):
    """One line of JSON a record; what a caller passes as `extra={"fields": ...}` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := request_id.get()) is not None:
            line["request"] = request
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def configure() -> None:
    """Log everything of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "openai", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
