"""A virtual machine with Debian's kernel that runs jobs: started, asked, ended."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernel import Kernel

MEMORY_MIB = 2048
CPUS = 2
BOOT_S = {"kvm": 60.0, "tcg": 180.0}
PROCESSOR = {"kvm": "host", "tcg": "qemu64"}
GRACE_S = 20.0  # for the agent to end a job that takes too long, and to say so
TAIL_LINES = 40


class GuestError(Exception):
    """The guest does not start, or does not answer; the text ends with its console."""


@dataclass(frozen=True)
class Done:
    """A job that has ended. ``code`` None: it took too long and was killed."""

    code: int | None
    output: str


class Guest:
    """A running guest; ``Guest.started`` makes one."""

    def __init__(self, process: "subprocess.Popen[bytes]", channel: socket.socket, console: Path):
        self._process = process
        self._channel = channel
        self._console = console
        self._received = b""
        self._ready = False
        self._outputs: dict[int, str] = {}
        self._codes: dict[int, int | None] = {}

    def start(self, *argv: str, timeout_s: float) -> int:
        """Have a command run in the guest, in the repository; two run at a time. Returns its job.

        ``timeout_s`` counts from when it begins.
        """
        job = len(self._outputs)
        self._outputs[job] = ""
        asked = {"job": job, "argv": argv, "timeout_s": timeout_s}
        self._channel.sendall(json.dumps(asked).encode() + b"\n")
        return job

    def wait(self, job: int, timeout_s: float) -> Done:
        """Wait until a job has ended. Raises GuestError when the guest does not say so in time."""
        deadline = time.monotonic() + timeout_s
        while job not in self._codes:
            self._listen(deadline)
        return Done(self._codes[job], self._outputs[job])

    def run(self, *argv: str, timeout_s: float) -> Done:
        """Run a short command in the guest. Raises GuestError."""
        return self.wait(self.start(*argv, timeout_s=timeout_s), timeout_s + GRACE_S)

    def wait_for_agent(self, timeout_s: float) -> None:
        """Wait until the guest is up. Raises GuestError."""
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            self._listen(deadline)

    def end(self) -> None:
        """End the agent and with it the machine; kill it if it does not."""
        self._channel.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self, deadline: float) -> None:
        """Take in the next thing that the agent says."""
        while b"\n" not in self._received:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                more = self._channel.recv(65536)
            except TimeoutError:
                raise self._error("does not answer") from None
            except ConnectionResetError:
                more = b""
            if not more:
                raise self._error("has ended")
            self._received += more
        line, self._received = self._received.split(b"\n", 1)
        said = json.loads(line)
        self._ready = True
        if "output" in said:
            self._outputs[said["job"]] += said["output"]
        elif "exit" in said:
            self._codes[said["job"]] = said["exit"]

    def _error(self, what: str) -> GuestError:
        lines = self._console.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return GuestError("\n".join([f"the guest {what}; {self._console} ends with:", *lines]))


@contextmanager
def started(kernel: Kernel, initramfs: Path, console: Path) -> Iterator[Guest]:
    """Start a guest: under KVM where that works, otherwise emulated. Raises GuestError."""
    guest = None
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        # The device may be there and not work, as in many a virtual machine.
        with suppress(GuestError):
            guest = _start("kvm", kernel, initramfs, console)
    guest = guest or _start("tcg", kernel, initramfs, console)
    try:
        yield guest
    finally:
        guest.end()


def _start(accelerator: str, kernel: Kernel, initramfs: Path, console: Path) -> Guest:
    guest = _launch(accelerator, kernel, initramfs, console)
    try:
        guest.wait_for_agent(BOOT_S[accelerator])
    except BaseException:
        guest.end()
        raise
    return guest


def _launch(accelerator: str, kernel: Kernel, initramfs: Path, console: Path) -> Guest:
    ours, theirs = socket.socketpair()
    acceleration = accelerator if accelerator == "kvm" else "tcg,thread=multi"
    share = "path=/,mount_tag=host,security_model=passthrough,readonly=on,multidevs=remap"
    argv = [
        "nice", "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none",
        "-accel", acceleration, "-cpu", PROCESSOR[accelerator],
        "-smp", str(CPUS), "-m", str(MEMORY_MIB), "-no-reboot",
        "-kernel", str(kernel.image), "-initrd", str(initramfs),
        "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio",
        "-virtfs", f"local,{share}",
        "-device", "virtio-serial", "-chardev", f"socket,id=jobs,fd={theirs.fileno()}",
        "-device", "virtserialport,chardev=jobs,name=jobs",
    ]  # fmt: skip
    with console.open("wb") as log, theirs:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for pytest, which then ends the guest
        )
    return Guest(process, ours, console)
