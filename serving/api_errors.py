"""Errors as OpenAI's clients expect them: a status and a body that says what is wrong, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

LONGEST = 500
"""Characters of a message."""


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII: texts of models may hold characters that no encoding has."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


class ErrorDetail(BaseModel):
    """What is wrong.

    Attributes:
        message: in words.
        type: kind of error, by status.
        param: the field of the request that is wrong, where it is one.
        code: short name, for programs.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every answer that is an error."""

    error: ErrorDetail


_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    502: "engine_error",
    503: "service_unavailable",
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in sorted(_TYPES)
}
"""For the OpenAPI schema."""


class ApiError(Exception):
    """A request that cannot be served.

    Args:
        status: of HTTP.
        message: for the client, in words.
        param: the field that is wrong.
        code: short name.
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.detail = ErrorDetail(
            message=message[:LONGEST],
            type=_TYPES.get(status, "server_error"),
            param=param,
            code=code,
        )

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return ErrorBody(error=self.detail).model_dump()

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = 'Bearer, Basic realm="dynasor: the key as password"'
        return headers

    def response(self) -> Response:
        """The whole answer."""
        return json_response(self.body, self.status, self.headers)


async def answer_api_error(request: Request, error: Exception) -> Response:
    """Handler of `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Handler of what the framework refuses: unknown paths and methods, bodies that are no JSON."""
    assert isinstance(error, HTTPException)
    response = ApiError(error.status_code, str(error.detail)).response()
    response.headers.update(error.headers or {})
    return response


async def answer_unexpected(request: Request, error: Exception) -> Response:
    """Handler of our own bugs: says nothing of them to the client; the log has it all."""
    return ApiError(500, "the server has met a bug of its own", code="internal").response()


async def answer_validation_error(request: Request, error: Exception) -> Response:
    """Handler of bodies that do not fit the model; the first problem is told."""
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors()).response()


def invalid(problems: Sequence[Any]) -> ApiError:
    """The first of pydantic's problems in OpenAI's words."""
    problem = problems[0]
    place = [str(part) for part in problem["loc"] if part != "body"]
    # Names of the alternatives that were tried are no fields of the request.
    param = ".".join(part for part in place if part.isidentifier() or part.isdigit()) or None
    if problem["type"] == "extra_forbidden":
        return ApiError(
            400,
            f"Unrecognized request argument supplied: {param}",
            param=param,
            code="unknown_parameter",
        )
    if problem["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    if problem["type"] == "missing" and param is None:
        return ApiError(400, "the body is empty: send a JSON object", code="invalid_json")
    if "content_type" in problem["type"]:
        return ApiError(415, "send the body as application/json")
    message = problem["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param)
