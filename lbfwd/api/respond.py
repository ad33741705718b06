"""Answers in JSON, refusals and failures included; every listener of the node's uses this."""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web
from pydantic import BaseModel

from lbfwd.config import ConfigError
from lbfwd.supervisor import log
from lbfwd.supervisor.errors import Refused, SupervisorError, TooSoon
from lbfwd.supervisor.plan import NeedsRestart

LONGEST_REASON = 200
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Events(logging.Handler):
    """What the HTTP server has to complain of, as events: one line, no traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        reason = getattr(error, "message", None) or str(error or record.getMessage())
        log.get().warning("request_refused", reason=" ".join(reason.split())[:LONGEST_REASON])


def server_log() -> logging.Logger:
    """Return the logger for aiohttp's runners; clients that are no HTTP clients end up there."""
    logger = logging.Logger("lbfwd.http", logging.WARNING)
    logger.addHandler(_Events())
    return logger


def json_response(body: object, status: int = 200) -> web.Response:
    """Return an answer: a model, or plain values."""
    if isinstance(body, BaseModel):
        text = body.model_dump_json()
        return web.Response(text=text, status=status, content_type="application/json")
    return web.json_response(body, status=status, dumps=json.dumps)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what a handler raises.

    400: a question that makes no sense; 422: a bad configuration; 409: a good one that needs a
    restart, or what cannot be done as things are; 429: not so often; 500: it did not work.
    """
    try:
        return await handler(request)
    except web.HTTPException as error:
        reason = error.text if isinstance(error, web.HTTPBadRequest) else error.reason
        return json_response({"error": f"{request.method} {request.path}: {reason}"}, error.status)
    except ConfigError as error:
        code = 409 if isinstance(error, NeedsRestart) else 422
        return json_response({"problems": [asdict(problem) for problem in error.problems]}, code)
    except SupervisorError as error:
        return json_response({"error": str(error)}, _status_of(error))
    except ConnectionError as error:  # whoever asked has gone; nobody reads this
        return json_response({"error": str(error)}, 400)
    except Exception as error:
        log.get().exception("request_failed", method=request.method, path=request.path)
        return json_response({"error": repr(error)}, 500)


def _status_of(error: SupervisorError) -> int:
    if isinstance(error, TooSoon):
        return web.HTTPTooManyRequests.status_code
    return 409 if isinstance(error, Refused) else 500
