"""Checks of lbfwd on a node: configuration, process, cores, limits, secret. Pure."""

from collections.abc import Iterator

from lbfwd import __version__
from lbfwd.config import Config
from lbfwd.config.machine import ranges
from lbfwd.config.model import RegisteredBackend
from lbfwd.doctor.facts import NodeFacts
from lbfwd.doctor.finding import Finding, broken, ok, warn
from lbfwd.health.question import questions
from lbfwd.supervisor.status import Status
from lbfwd.tune.rules import OPTMEM_BYTES

FILES_SPARE = 512
NEIGHBOURS_SPARE = 256


def configuration(facts: NodeFacts) -> Iterator[Finding]:
    """Check the file: whether it holds, and whether it is what was meant."""
    check = f"lbfwd check {facts.config_file}"
    for problem in facts.problems:
        why = "a reload or a restart refuses this file"
        yield broken("configuration", str(problem), why, check)
    for problem in facts.warnings:
        yield warn("configuration", str(problem), "it is allowed, and probably not meant", check)
    if not facts.problems and not facts.warnings:
        yield ok("configuration", facts.config_file)


def process(facts: NodeFacts) -> Iterator[Finding]:
    """Check the supervisor, its workers and its interfaces."""
    status = facts.status
    if facts.foreign:
        why = "the update is not in force, and what this status says cannot be read"
        yield _outdated(facts.foreign, why)
        return
    if status is None:
        yield broken("process", facts.refused, "nothing is forwarded", "systemctl start lbfwd")
        return
    if status.version != __version__:
        yield _outdated(status.version, "the update is not in force")
    lost = [worker for worker in status.workers if worker.state == "abandoned"]
    for worker in lost:
        what = f"the worker on cpu {worker.cpu} was given up after {worker.restarts} restarts"
        why = "the others have its share"
        yield broken("process", what, why, "journalctl -u lbfwd; systemctl restart lbfwd")
    for interface in status.interfaces:
        if interface.state != "up" or not interface.carrier:
            state = "has no carrier" if interface.state == "up" else f"is {interface.state}"
            why = "nothing comes in or leaves there"
            fix = f"ip link set {interface.name} up"
            yield broken("process", f"{interface.name} {state}", why, fix)
    if not lost:
        yield ok("process", f"lbfwd {status.version}, {len(status.workers)} workers")


def _outdated(version: str, why: str) -> Finding:
    what = f"lbfwd {version} runs, {__version__} is installed"
    return warn("process", what, why, "systemctl restart lbfwd")


def cores(facts: NodeFacts) -> Iterator[Finding]:
    """Tell whether the workers' cores are theirs."""
    if facts.config is None:
        return
    workers = frozenset(facts.config.workers.cpus)
    slow = sorted(c for c in workers if facts.governors.get(c, "performance") != "performance")
    if slow:
        what = f"cpus {ranges(slow)}: governor {facts.governors[slow[0]]}"
        why = "a core that has slowed down drops the first packets of a burst"
        fix = "cpupower -c " + ranges(slow) + " frequency-set -g performance"
        yield warn("cores", what, why, fix)
    if shared := workers - facts.isolated:
        what = f"cpus {ranges(shared)} are not isolated"
        why = "the scheduler puts other processes beside the workers, which delays packets"
        option = f"isolcpus={ranges(workers)}"
        fix = f"editor /etc/default/grub  # GRUB_CMDLINE_LINUX: {option}"
        yield warn("cores", what, why, f"{fix}; then update-grub; reboot")
    if not slow and not shared:
        yield ok("cores", f"cpus {ranges(workers)} are isolated")


def limits(facts: NodeFacts) -> Iterator[Finding]:
    """Check limits: socket options (filters), send buffers, neighbours, descriptors."""
    found = [*_filters(facts), *_neighbours(facts), *_files(facts), *_send_buffers(facts)]
    yield from found or [ok("limits", "filters, neighbours and descriptors have room")]


def _filters(facts: NodeFacts) -> Iterator[Finding]:
    if facts.status is None:
        return
    unfiltered = [i.name for i in facts.status.interfaces if i.admits_all]
    if unfiltered:
        yield warn(
            "limits",
            f"{', '.join(unfiltered)}: the filter for the VIPs did not fit "
            f"(net.core.optmem_max = {facts.sysctls.get('core/optmem_max', 'unknown')})",
            "workers look at every packet of the interface",
            f"sysctl -w net.core.optmem_max={OPTMEM_BYTES}; systemctl restart lbfwd",
        )


def _neighbours(facts: NodeFacts) -> Iterator[Finding]:
    if facts.config is None:
        return
    config = _with_registered(facts.config, facts.status)
    addresses = {b.address for pool in config.pools for b in pool.backends}
    for version in (4, 6):
        count = sum(address.version == version for address in addresses)
        path = f"ipv{version}/neigh/default/gc_thresh3"
        most = facts.sysctls.get(path)
        if most is not None and count and count + NEIGHBOURS_SPARE > most:
            what = f"{count} IPv{version} backends, and net.{_dots(path)} = {most}"
            why = "backends on connected networks are neighbours: the table may be too small"
            fix = "install -m 644 deploy/sysctl-node.conf /etc/sysctl.d/60-lbfwd.conf"
            yield warn("limits", what, why, f"{fix} && sysctl --system")


def _files(facts: NodeFacts) -> Iterator[Finding]:
    if facts.config is None or facts.files_limit is None:
        return
    asked = questions(_with_registered(facts.config, facts.status)).values()
    probes = len({question for several in asked for question in several})
    rings = len(facts.config.workers.cpus) * len(facts.config.node.interfaces)
    if (needed := probes + 2 * rings + FILES_SPARE) > facts.files_limit:
        what = f"lbfwd may open {facts.files_limit} files, and needs up to {needed}"
        why = "probes and rings are descriptors: probes will fail"
        fix = f"systemctl edit lbfwd  # [Service] LimitNOFILE={2 * needed}; then restart"
        yield warn("limits", what, why, fix)


def _with_registered(config: Config, status: Status | None) -> Config:
    """Add the backends that registered: they are in no file."""
    found = {
        pool.name: tuple(
            RegisteredBackend(address=backend.address, name=backend.name)
            for backend in pool.backends
            if backend.registration
        )
        for pool in (status.pools if status else ())
    }
    pools = tuple(
        pool.model_copy(update={"backends": (*pool.backends, *found.get(pool.name, ()))})
        for pool in config.pools
    )
    return config.model_copy(update={"pools": pools})


def _send_buffers(facts: NodeFacts) -> Iterator[Finding]:
    """Compare the send buffer's limit with TX rings: only CAP_NET_ADMIN of the host can pass it."""
    most = facts.sysctls.get("core/wmem_max")
    if facts.config is None or most is None or facts.privileged:
        return
    frames = max(own.tx_ring_frames for own in facts.config.settings_by_cpu.values())
    if (needed := frames * 2048) > most:
        what = f"net.core.wmem_max = {most}, and a TX ring holds {needed} bytes"
        why = "without CAP_NET_ADMIN the send buffer bounds how many frames are on their way"
        yield warn("limits", what, why, f"sysctl -w net.core.wmem_max={needed}  # on the host")


def secret(facts: NodeFacts) -> Iterator[Finding]:
    """Tell who can read the hash_key."""
    if facts.secret is None:
        return
    mode, path = facts.secret.mode & 0o777, facts.secret.path
    if mode & 0o077:
        what = f"{path}: mode {mode:04o}"
        why = "it holds the hash_key: who reads it can aim flows at one backend"
        yield broken("hash_key", what, why, f"chmod 0600 {path}")
    elif facts.secret.owner != 0:
        what = f"{path} belongs to user {facts.secret.owner}"
        yield warn("hash_key", what, "it holds the hash_key", f"chown root {path}")
    else:
        yield ok("hash_key", f"{path}: mode {mode:04o}")


def _dots(path: str) -> str:
    return path.replace("/", ".")
