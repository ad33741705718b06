"""keepalived.conf as people write it, and what comes out, read by Python's own TOML parser."""

import tomllib
from pathlib import Path
from typing import Any

from lbfwd import config
from lbfwd.importer.convert import convert

DUAL_STACK = """\
! Configuration File for keepalived
global_defs {
    router_id LVS_MAIN   # the first of two
}
vrrp_instance VI_1 {
    interface bond0.100
    virtual_ipaddress { 192.0.2.10/24 }
}
virtual_server 192.0.2.10 443 {
    delay_loop 5
    lb_algo wrr
    lb_kind DR
    persistence_timeout 300
    protocol TCP
    quorum 2
    sorry_server 10.0.0.99 443
    real_server 10.0.0.11 443 {
        weight 3
        inhibit_on_failure
        SSL_GET {
            url {
                path "/health?full=1"
                status_code 200 204 300-302
                virtualhost www.example.com
            }
            connect_timeout 2.5
            retry 2
            delay_before_retry 1
        }
    }
    real_server 10.0.0.12 443 {
        weight 1
        SSL_GET {
            url {
                path "/health?full=1"
                status_code 200 204 300-302
                virtualhost www.example.com
            }
            connect_timeout 2.5
            retry 2
            delay_before_retry 1
        }
    }
}
virtual_server 2001:db8::10 53
{
    lvs_sched mh
    mh-port
    lvs_method TUN type gre
    protocol UDP
    ops
    real_server 2001:db8:2::11 53 { DNS_CHECK { type A
        name www.example.com. } }
    real_server 10.0.0.12 53 {
        DNS_CHECK {
            type A
            name www.example.com.
        }
        PING_CHECK { }
    }
}
"""


def imported(tmp_path: Path, text: str, config_id: str | None = None) -> tuple[Any, list[str]]:
    """The TOML document, and the notes with the file's name alone; `check` finds nothing wrong."""
    file = tmp_path / "keepalived.conf"
    file.write_text(text)
    toml, notes = convert(file, config_id)
    document = tomllib.loads(toml)
    config.parse(toml.replace("hash_key_file", "# hash_key_file"), "imported", hash_key=bytes(16))
    shown = [note.replace(str(file), "k") for note in notes]
    for note in shown:
        assert f"# {note}" in toml.replace(str(file), "k")
    return document, shown


def virtual(*inside: str, head: str = "192.0.2.10 80", server: str = "") -> str:
    """A virtual server with one real server; line 1 is its head, line 2 begins ``inside``."""
    real = f"real_server 10.0.0.11 80 {{\n{server}\n}}"
    return "\n".join([f"virtual_server {head} {{ protocol TCP", *inside, real, "}"])
