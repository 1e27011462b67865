"""Bodies made at random from our own OpenAPI document, for every route for programs: python -m tests.soak.fuzz [CALLS].

No call may be answered with a server error, and none may write a traceback to the log. schemathesis makes the calls,
right ones and wrong ones; the sampler is the fake one.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from starlette.middleware import Middleware

from studio.api.programs import program_routes
from studio.services.context import AppContext
from tests.api.openai.conftest import NamesCallers
from tests.fakes import FakeBackend
from tests.ui.harness import fake_context


class Tracebacks(logging.Handler):
    """Keeps what is logged with an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.texts.append(self.format(record))


def fuzz(context: AppContext, count: int) -> Counter[tuple[str, str, int]]:
    """Send up to `count` calls to each route, right and wrong ones. Return how many had which (method, path, status).

    Raises AssertionError for a server error or a logged traceback, and whatever a handler raises.
    """
    app = FastAPI(
        openapi_url=None, docs_url=None, routes=program_routes(context), middleware=[Middleware(NamesCallers)]
    )
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    answers: Counter[tuple[str, str, int]] = Counter()
    tracebacks = Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    try:
        for operation in document.get_all_operations():
            modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 2 if operation.ok().body else 1]
            for mode in modes:  # a route without a body takes no wrong ones
                _fuzz_operation(operation.ok(), mode, count // 2, answers)
    finally:
        logging.getLogger().removeHandler(tracebacks)
    assert tracebacks.texts == []
    return answers


def _fuzz_operation(operation, mode: GenerationMode, count: int, answers: Counter) -> None:
    cases = operation.as_strategy(generation_mode=mode)

    @seed(1)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, upload=st.sampled_from((None, _picture(), _picture()[:40])))
    def call(case, upload: bytes | None) -> None:
        if upload is not None and isinstance(case.body, dict) and "image" in case.body:
            case.body["image"] = upload  # else what is at random is no picture
        answer = case.call()
        answers[operation.method.upper(), operation.path, answer.status_code] += 1
        assert answer.status_code < 500, (case.body, answer.text)

    call()


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG")
    return file.getvalue()


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, fake_context(Path(folder), lambda: FakeBackend(delay=0)) as context:
        answers = fuzz(context, total // 3)  # of the three routes that take bodies
    for (method, path, status), number in sorted(answers.items()):
        print(f"{method} {path} {status}: {number}")
    print(f"{answers.total()} calls, no server error, no traceback")


if __name__ == "__main__":
    main()
