#!/usr/bin/env python3
"""What the guide asks of systemctl, in a namespace without systemd: the units' own commands.

start, stop, restart and enable --now run ExecStartPre, ExecStart (until READY=1, for Type=notify),
ExecStop and ExecStopPost of the real unit files. It runs outside of lbfwd's environment.
"""

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("/run/units")
PLACES = [Path("/usr/share/doc/lbfwd/examples"), Path("/usr/lib/systemd/system")]
WAIT_S = 50
STAYS_IN_FRONT = ("simple", "notify")
Keys = dict[str, list[str]]
Environment = dict[str, str]


def assignments(file: Path) -> list[tuple[str, str]]:
    pairs = [line.split("=", 1) for line in file.read_text().splitlines() if "=" in line]
    return [(key, value) for key, value in pairs if not key.startswith("#")]


def read(unit: str) -> Keys:
    (file, *_) = [p / f"{unit}.service" for p in PLACES if (p / f"{unit}.service").exists()]
    keys: Keys = {}
    for key, value in assignments(file):
        keys.setdefault(key, []).append(value)
    return keys


def environment(keys: Keys) -> Environment:
    found = dict(os.environ)
    for file in keys.get("EnvironmentFile", []):
        found |= {key: value.strip("\"'") for key, value in assignments(Path(file))}
    return found


def argv(command: str, env: Environment) -> list[str]:
    words = shlex.split(command.lstrip("-+!"))
    return [x for w in words for x in (env.get(w[1:], "").split() if w.startswith("$") else [w])]


def each(keys: Keys, name: str, env: Environment) -> None:
    for command in keys.get(name, []):
        done = subprocess.run(argv(command, env), env=env, check=False)
        if done.returncode and not command.startswith("-"):
            sys.exit(f"systemctl: {command}: exit code {done.returncode}")


def start(unit: str, keys: Keys, env: Environment) -> None:
    (kind,) = keys.get("Type", ["simple"])
    each(keys, "ExecStartPre", env)
    if kind not in STAYS_IN_FRONT:
        each(keys, "ExecStart", env)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        if kind == "notify":
            address = RUN / f"{unit}.notify"
            address.unlink(missing_ok=True)
            told.bind(str(address))
            env["NOTIFY_SOCKET"] = str(address)
        log = RUN / f"{unit}.log"
        with log.open("a") as stream:
            process = subprocess.Popen(
                argv(keys["ExecStart"][0], env),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        (RUN / f"{unit}.pid").write_text(str(process.pid))
        if kind == "notify" and not ready(told, process):
            sys.exit(f"systemctl: {unit} did not start: {log.read_text()}")


def ready(told: socket.socket, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + WAIT_S
    told.settimeout(0.2)
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if b"READY=1" in told.recv(4096).split(b"\n"):
                return True
        except TimeoutError:
            continue
    return False


def stop(unit: str, keys: Keys, env: Environment) -> None:
    pid_file = RUN / f"{unit}.pid"
    if pid_file.exists():
        process = os.pidfd_open(int(pid_file.read_text()))
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], WAIT_S)[0]:
            sys.exit(f"systemctl: {unit} does not stop")
        pid_file.unlink()
    each(keys, "ExecStop", env)
    each(keys, "ExecStopPost", env)


def main(verb: str, *words: str) -> None:
    assert verb in ("start", "stop", "restart") or (verb, *words[:1]) == ("enable", "--now")
    for unit in [word for word in words if not word.startswith("-")]:
        keys = read(unit)
        if verb in ("stop", "restart"):
            stop(unit, keys, environment(keys))
        if verb != "stop":
            start(unit, keys, environment(keys))


if __name__ == "__main__":
    main(*sys.argv[1:])
