"""Why statements of keepalived.conf(5) are not converted, and what stands for them here."""

_NO_SCRIPTS = "runs a program: no equivalent; lbfwd's log tells each change (docs/events.md)"
_PROBES_BIND = "probes leave by the route to the backend: left out"
_CONNECTIONS = "no limits of connections: left out"
_VRRP = "VRRP: no equivalent; nodes are active together, routers choose (docs/announce.md)"

OTHER_BLOCKS = "no equivalent: left out"

SCHEDULERS = {
    "rr": "a hash of the flow decides: even on average, not in turn; weights do not count in rr",
    "wrr": "a hash of the flow decides: by weight on average, not in turn",
    "lc": "a hash of the flow decides, not how many connections a backend has",
    "wlc": "a hash of the flow and the weights decide, not how many connections a backend has",
    "sed": "a hash of the flow and the weights decide, not how many connections a backend has",
    "nq": "a hash of the flow and the weights decide, not how many connections a backend has",
    "twos": "a hash of the flow and the weights decide, not how many connections a backend has",
    "lblc": "a hash of the flow decides, not the destination",
    "lblcr": "a hash of the flow decides, not the destination",
    "dh": "a hash of the flow decides, not the destination",
    "sh": "a hash of the source here, too (affinity), but another: clients get other servers once",
    "mh": "a Maglev table here, too, with another hash: clients get other servers once",
    "fo": "no failover by weight: all backends get flows, by weight",
    "ovf": "no overflow by weight: all backends get flows, by weight",
}

METHODS = {
    "NAT": "no address translation: the backend has the VIP on lo, unwraps GRE and answers the"
    " client directly (docs/backend.md); its default route need not lead here any more",
    "DR": "packets come in GRE, not to the MAC address: the backend keeps the VIP on lo and"
    " unwraps GRE (docs/backend.md)",
    "TUN": "packets come in GRE (RFC 2784): the backend keeps the VIP on lo and unwraps GRE"
    " in the place of that tunnel (docs/backend.md)",
}

CHECKS = {
    "SMTP_CHECK": "a TCP connection in its place: nobody says HELO",
    "MISC_CHECK": "runs a program",
    "PING_CHECK": "no echo requests as a check",
    "BFD_CHECK": "no BFD with backends",
    "FILE_CHECK": "no file as a check",
}

REASONS = {
    "vrrp_instance": _VRRP,
    "vrrp_sync_group": _VRRP,
    "vrrp_script": _VRRP,
    "vrrp_track_process": _VRRP,
    "sorry_server": "no equivalent; empty says what clients get when no backend serves",
    "sorry_server_inhibit": "no equivalent",
    "sorry_server_lvs_method": "no equivalent",
    "quorum": "no equivalent: the VIP is withdrawn when no backend serves (docs/announce.md);"
    " min_healthy keeps backends in service instead",
    "hysteresis": "no equivalent: see quorum",
    "quorum_up": _NO_SCRIPTS,
    "quorum_down": _NO_SCRIPTS,
    "notify_up": _NO_SCRIPTS,
    "notify_down": _NO_SCRIPTS,
    "smtp_alert": "no mail: Prometheus' alerts (docs/deploy.md)",
    "snmp_name": "no SNMP: Prometheus' metrics (docs/metrics.md)",
    "alpha": "always so: a backend gets no flows before its first check has passed",
    "omega": "no equivalent: see quorum_down",
    "ops": "no equivalent: datagrams of a flow go to one backend; a flow is forgotten after"
    " udp_idle_s",
    "persistence_engine": "left out: affinity is by source address",
    "persistence_granularity": "affinity is by the whole source address, not by prefix",
    "ha_suspend": "no equivalent: this node checks always",
    "ip_family": "no equivalent: a VIP has its family",
    "flag-1": "the scheduler's flag: left out",
    "flag-2": "the scheduler's flag: left out",
    "flag-3": "the scheduler's flag: left out",
    "warmup": "not needed: probes are spread by themselves",
    "uthreshold": _CONNECTIONS,
    "lthreshold": _CONNECTIONS,
    "inhibit_on_failure": "no equivalent: live flows of a backend that fails its checks move",
    "bindto": _PROBES_BIND,
    "bind_if": _PROBES_BIND,
    "bind_port": _PROBES_BIND,
    "fwmark": "no equivalent: packets are matched by VIP, protocol and port",
    "log_all_failures": "changes are logged, and `lbfwd status` shows the last failure",
    "http_protocol": "asked by HTTP/1.1",
    "fast_recovery": "not needed: one URL is asked",
    "digest": "no digests: body looks for a text instead",
    "regex_no_match": "no equivalent",
    "regex_options": "no regular expressions: body looks for a text instead",
    "regex_stack": "no regular expressions",
    "regex_min_offset": "body is looked for in the first 64 KiB",
    "regex_max_offset": "body is looked for in the first 64 KiB",
    "min_reply_length": "no lengths: expect looks for bytes instead",
    "max_reply_length": "no lengths: expect looks for bytes instead",
}
