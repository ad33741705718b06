"""Bodies of requests, JSON objects: read, or refused by key and rule."""

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError


class Body(BaseModel):
    """What a body may hold, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Kind = TypeVar("Kind", bound=Body)


async def read(request: web.Request, kind: type[Kind]) -> Kind:
    """Read a body; none at all is an empty object. Raises HTTPBadRequest."""
    try:
        return kind.model_validate_json(await request.read() or b"{}")
    except ValidationError as error:
        raise bad(error) from None
    except web.RequestPayloadError as error:  # it is not encoded as its head says
        raise web.HTTPBadRequest(text=f"body: {' '.join(str(error).split())}") from None


def bad(error: ValidationError) -> web.HTTPBadRequest:
    """Return a refusal that names each key that is wrong, and the rule; values may be secret."""
    found = (
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()
    )
    return web.HTTPBadRequest(text="; ".join(found))
