"""Which capabilities this process has (capabilities(7), /proc/self/status)."""

from pathlib import Path

# Bit numbers of <linux/capability.h>, and what lbfwd needs each for.
REQUIRED = {
    "CAP_NET_ADMIN": 12,  # nftables, fanout, kept neighbours
    "CAP_NET_RAW": 13,  # packet sockets
}


def missing(status: str) -> tuple[str, ...]:
    """Return the names of required capabilities that are not effective.

    ``status`` is the text of /proc/PID/status; its CapEff line is a hexadecimal mask.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    effective = int(fields["CapEff"], 16)
    return tuple(name for name, bit in REQUIRED.items() if not effective >> bit & 1)


def missing_here() -> tuple[str, ...]:
    """Return the names of required capabilities that this process does not have."""
    return missing(Path("/proc/self/status").read_text(encoding="utf-8"))
