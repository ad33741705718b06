"""A machine of the guide: namespaces for network, mounts, processes and its name.

/etc, /var and /usr/bin are overlays, /run is empty, and lbfwd's files lie where its package puts
them: the guide's commands run as written and change nothing outside. What they start ends with the
first process. systemctl and scp are stand-ins (their files say what for).
"""

import shutil
import subprocess
import sys
from pathlib import Path

from lbfwd.demo.lab import Host, eventually

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
START_S = 20.0

_SETUP = """
set -eu
hostname {name}
for tree in etc var usr/bin; do
    mount -t overlay overlay \\
        -o lowerdir=/$tree,upperdir={own}/$tree,workdir={own}/scratch/$tree /$tree
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/share/doc
mkdir -p /usr/share/doc/lbfwd/examples /etc/lbfwd /var/lib/lbfwd /run/lbfwd /run/units
mount --bind {deploy} /usr/share/doc/lbfwd/examples
echo "127.0.1.1 {name}" >>/etc/hosts
touch {own}/ready
exec sleep infinity
"""


class Machine:
    """One box; ``own``: what it has changed of its files."""

    def __init__(self, host: Host, site: Path, name: str) -> None:
        self.name = name
        self.own = site / name
        for tree in ("etc", "var", "usr/bin"):
            (self.own / tree).mkdir(parents=True)
            (self.own / "scratch" / tree).mkdir(parents=True)
        for tool in ("systemctl.py", "scp.sh"):
            shutil.copy(HERE / tool, self.own / "usr/bin" / Path(tool).stem)
            (self.own / "usr/bin" / Path(tool).stem).chmod(0o755)
        (self.own / "usr/bin/lbfwd").symlink_to(Path(sys.executable).parent / "lbfwd")
        own = ("--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
        setup = _SETUP.format(name=name, own=self.own, deploy=ROOT / "deploy")
        self._process = host.start("unshare", *own, "sh", "-c", setup)
        eventually(
            lambda: (self.own / "ready").exists() or self._process.poll() is not None,
            START_S,
            f"{name} is set up",
        )
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        self._environment = {"PATH": path, "LANG": "C.UTF-8", "GUIDE_SITE": str(site)}

    def run(self, commands: str) -> "subprocess.CompletedProcess[str]":
        """Run commands in a shell of root's; stderr is part of the output."""
        (child,) = self._first().read_text().split()
        enter = ["nsenter", "-t", child, "--mount", "--pid", "--uts", "--net"]
        return subprocess.run(
            [*enter, "sh", "-euc", commands],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            timeout=60,
            check=False,
        )

    def write(self, path: str, text: str) -> None:
        """Put a file where it belongs."""
        done = self.run(f"cat >{path} <<'END OF FILE'\n{text}END OF FILE")
        assert done.returncode == 0, done.stdout

    def logs(self) -> str:
        """What its daemons have said."""
        return self.run("tail -n 30 /run/units/*.log 2>/dev/null || true").stdout

    def end(self) -> None:
        """End all its processes: they go with the first one."""
        self._process.kill()
        self._process.wait()

    def _first(self) -> Path:
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children")
