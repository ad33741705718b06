"""Be an ordinary user, wherever root keeps the interpreter and whatever /dev/net/tun allows."""

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
# What an ordinary user's login finds on Debian: no folders of system tools.
ENVIRONMENT = ("env", "HOME=/", "PATH=/usr/local/bin:/usr/bin:/bin")


def as_nobody(tun_mode: int) -> list[str]:
    """Return what to put before a command so that the user nobody runs it.

    All of it happens in a mount namespace that goes with the command.
    """
    steps = [
        "set -e",
        "node=$(mktemp -u)",
        f"mknod -m {tun_mode:o} $node c 10 200",
        "mount --bind $node /dev/net/tun",
        "rm $node",
    ]
    needed = {Path(sys.base_prefix), Path(sys.prefix), ROOT}
    for closed in closed_folders(needed):
        steps += open_up(closed, [path for path in needed if path.is_relative_to(closed)])
    steps.append('exec "$@"')
    return ["unshare", "--mount", "sh", "-c", "\n".join(steps), "sh", *NOBODY, *ENVIRONMENT]


def closed_folders(paths: Iterable[Path]) -> set[Path]:
    """The outermost folder on the way to each path that others may not go through."""
    ways = ([*reversed(path.parents), path] for path in paths)
    closed = (next((f for f in way if not f.stat().st_mode & 0o001), None) for way in ways)
    return {folder for folder in closed if folder}


def open_up(closed: Path, needed: Iterable[Path]) -> list[str]:
    """Shell commands that leave of a folder only what is needed, and let everybody in."""
    steps = ["aside=$(mktemp -d)", "mount -t tmpfs aside $aside"]
    places = [path for path in needed if path != closed]
    for index, place in enumerate(places):
        steps += [f"mkdir $aside/{index}", f"mount --rbind {place} $aside/{index}"]
    steps.append(f"mount -t tmpfs -o mode=755 open {closed}")
    for index, place in enumerate(places):
        steps += [f"mkdir -p {place}", f"mount --rbind $aside/{index} {place}"]
    steps += ["umount --lazy $aside", "rmdir $aside"]
    return steps
