"""A backend's web server: ``python -m lbfwd.demo.server NAME``.

``GET /`` says who answers; ``GET /blob?seed=S&size=N`` sends N bytes; ``POST /digest`` returns the
SHA-256 of what it was sent. Every answer carries the backend's name in ``X-Backend``.
"""

import hashlib
import sys

from aiohttp import web

from lbfwd.demo.payload import CHUNK_BYTES, payload
from lbfwd.demo.topology import PORT

NAME_HEADER = "X-Backend"
ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - the VIPs come and go; the namespace is private


def application(name: str) -> web.Application:
    """Return the server of the backend ``name``."""

    async def greet(_request: web.Request) -> web.Response:
        return web.Response(text=f"Hello from backend {name}.\n")

    async def sign(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers[NAME_HEADER] = name

    app = web.Application()
    app.add_routes(
        [web.get("/", greet), web.get("/blob", send_blob), web.post("/digest", take_digest)]
    )
    app.on_response_prepare.append(sign)
    return app


async def send_blob(request: web.Request) -> web.StreamResponse:
    """Send the payload of a seed, in chunks."""
    data = memoryview(payload(int(request.query["seed"]), int(request.query["size"])))
    response = web.StreamResponse()
    response.content_length = len(data)
    await response.prepare(request)
    for start in range(0, len(data), CHUNK_BYTES):
        await response.write(bytes(data[start : start + CHUNK_BYTES]))
    return response


async def take_digest(request: web.Request) -> web.Response:
    """Return the SHA-256 of the body."""
    hasher = hashlib.sha256()
    async for chunk in request.content.iter_any():
        hasher.update(chunk)
    return web.Response(text=hasher.hexdigest())


if __name__ == "__main__":
    web.run_app(application(sys.argv[1]), host=ADDRESSES, port=PORT, print=None)
