"""Who asks on a UNIX socket: unix(7), SO_PEERCRED."""

import pwd
import socket
import struct

from aiohttp import web

_UCRED = struct.Struct("3i")  # pid, uid, gid


def user_of(request: web.Request) -> str:
    """Return the name of the user whose process asks, or ``user NUMBER`` where he has none."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or sock.family != socket.AF_UNIX:
        return "unknown"
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(data)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
