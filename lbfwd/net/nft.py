"""Runs nft(8), in the one way for all who have a table. Blocks."""

import os
import shutil
import subprocess

TIMEOUT_S = 30
_ABSENT = "No such file or directory"
_FORBIDDEN = "Operation not permitted"


class NftError(Exception):
    """nft did not do what it was asked; the text says why."""


class NothingThere(NftError):  # noqa: N818 - the name says what is wrong
    """What nft was to list or delete does not exist."""


def run(*arguments: str, script: str = "") -> str:
    """Run nft with these arguments, ``script`` as its input; returns what it prints.

    Raises NftError: no nft, no CAP_NET_ADMIN, no answer within TIMEOUT_S, or what nft says.
    """
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise NftError("no nft command: apt install nftables")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C"},  # its errors in English
            start_new_session=True,  # a terminal's second Ctrl-C must not end the clean-up
        )
    except subprocess.TimeoutExpired as error:
        raise NftError(f"nft {arguments[0]}: no answer within {TIMEOUT_S} s") from error
    if done.returncode == 0:
        return done.stdout
    complaint = done.stderr.strip()
    if _FORBIDDEN in complaint:
        raise NftError("needs CAP_NET_ADMIN (nft: Operation not permitted)")
    kind = NothingThere if _ABSENT in complaint else NftError
    raise kind(f"nft {' '.join(arguments)}: {complaint}")
