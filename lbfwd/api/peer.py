"""Who asks on a UNIX socket: unix(7), SO_PEERCRED."""

import asyncio
import pwd
import socket
import struct

from aiohttp import web

_UCRED = struct.Struct("3i")  # pid, uid, gid


async def user_of(request: web.Request) -> str:
    """Return the name of the user whose process asks, or ``user NUMBER`` where there is none."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or sock.family != socket.AF_UNIX:
        return "unknown"
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(data)
    try:
        found = await asyncio.to_thread(pwd.getpwuid, uid)  # it may ask over the network
        return found.pw_name
    except KeyError:
        return f"user {uid}"
