"""Errors in the form that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from studio.api.openai.bodies import ALLOWED
from studio.api.openai.calls import JobFailed, UnknownCaller
from studio.engine.checks import quote_value
from studio.engine.job import JobRejected

HEADERS = {"x-should-retry": "false"}  # the official client would repeat the call, which changes nothing


class CallRefused(ValueError):
    """A call that is refused. Its text is one sentence; `param` is the field, if it is one."""

    def __init__(self, sentence: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(sentence)
        self.param, self.status, self.code = param, status, code


def describe_error(problem: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body for an exception that a call may raise. Raises any other again."""
    status, kind, param, code = 400, "invalid_request_error", None, None
    sentence = str(problem)
    if isinstance(problem, CallRefused):
        status, param, code = problem.status, problem.param, problem.code
    elif isinstance(problem, ValidationError | RequestValidationError):
        sentence, param = _describe_field(dict(problem.errors()[0]))
    elif isinstance(problem, UnknownCaller):
        status, kind, code = 401, "authentication_error", "invalid_api_key"
    elif isinstance(problem, JobRejected):
        status, kind, code = 429, "rate_limit_error", "job_rejected"
    elif isinstance(problem, JobFailed):
        status, kind, code = 500, "server_error", "job_failed"
    elif isinstance(problem, HTTPException):
        status, sentence = problem.status_code, problem.detail
    elif not isinstance(problem, ValueError):
        raise problem
    return status, {"error": {"message": sentence, "type": kind, "param": param, "code": code}}


def _describe_field(error: dict[str, Any]) -> tuple[str, str | None]:
    """Return a sentence and the field of the first thing that is wrong with a body."""
    names = [part for part in error["loc"] if part in ALLOWED]
    if not names:
        return "The body must be a JSON object with a prompt.", None
    if error["type"] == "missing":
        return f"The {names[0]} is missing.", names[0]
    return f"The {names[0]} must be {ALLOWED[names[0]]}; it was {quote_value(error['input'])}.", names[0]


class OpenAIRoute(APIRoute):
    """A route that answers refused calls as OpenAI does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as problem:
                status, body = describe_error(problem)
                return JSONResponse(body, status, HEADERS)

        return answer
