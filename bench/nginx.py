"""A real nginx on a lab's host, for benchmarks and topology tests."""

import subprocess
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Host

MASTER = "worker_processes 1;"
SINGLE = "master_process off;"
"""One process: a signal to it is a signal to all of it."""


def template(server: str, main: str = MASTER, http: str = "", connections: int = 512) -> str:
    """Return a configuration, to be completed with ``str.format(root=…)``: a folder of its own.

    ``server``: its ``server`` blocks; ``main`` and ``http``: directives there. All three may have
    fields of their own, and so double their braces.
    """
    return f"""
daemon off;
{main}
pid {{root}}/pid;
error_log {{root}}/error.log;
events {{{{ worker_connections {connections}; }}}}
http {{{{
  access_log off;
  client_body_temp_path {{root}}/body;
  proxy_temp_path {{root}}/proxy;
  fastcgi_temp_path {{root}}/fastcgi;
  uwsgi_temp_path {{root}}/uwsgi;
  scgi_temp_path {{root}}/scgi;
{http}
{server}
}}}}
"""


def start(host: Host, root: Path, text: str) -> "subprocess.Popen[Any]":
    """Start one with a configuration; what it says is in ``root / "nginx.log"``."""
    file = root / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    command = ("nginx", "-e", str(root / "error.log"), "-c", str(file))
    with (root / "nginx.log").open("a") as log:
        return host.start(*command, stdout=log, stderr=log)
