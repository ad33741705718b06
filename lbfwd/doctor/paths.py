"""Checks of what a node forwards, and by which ways: addresses, next hops, health. Pure."""

from collections import defaultdict
from collections.abc import Iterator

from lbfwd.config import Pool
from lbfwd.doctor.facts import NodeFacts
from lbfwd.doctor.finding import Finding, broken, ok, warn
from lbfwd.supervisor.status import PoolStatus

SLOW_S = 15.0  # a failure that takes longer to be noticed is complained of first by users


def addresses(facts: NodeFacts) -> Iterator[Finding]:
    """Look for VIPs that are addresses of the node itself."""
    if facts.config is None:
        return
    vips = {service.vip for service in facts.config.services}
    found = [entry for entry in facts.local if entry.address in vips]
    if not found:
        yield ok("addresses", f"none of {len(vips)} VIPs is an address of this node")
    for entry in found:
        yield broken(
            "addresses",
            f"VIP {entry.address} is an address of {entry.interface}",
            "the node would answer itself what the guard lets through, and drops the answers to "
            "probes through the tunnel",
            f"ip address del {entry.address}/{entry.network.prefixlen} dev {entry.interface}",
        )


def guard(facts: NodeFacts) -> Iterator[Finding]:
    """Look for the nftables chain that keeps VIP packets from the node's own stack."""
    if facts.status is None:
        return
    if not facts.guard:
        yield ok("guard", "in place on every receiving interface")
        return
    yield broken(
        "guard",
        facts.guard,
        "the node's own stack sees packets for the VIPs: it routes them a second time, or answers",
        "nft list table netdev lbfwd; lbfwd reload  # puts it back; who flushes nftables here?",
    )


def answers(facts: NodeFacts) -> Iterator[Finding]:
    """Tell whether rp_filter lets the answers to probes through the tunnel in."""
    if facts.config is None or not any(tunnelled(pool) for pool in facts.config.pools):
        return
    if not facts.answers:
        yield ok("rp_filter", "answers from the VIPs come in")
    for finding in facts.answers:
        why = "probes through the tunnel get no answer: every backend of the VIP looks dead"
        yield broken("rp_filter", finding.reason, why, finding.fix)


def tunnelled(pool: Pool) -> bool:
    """Whether a pool is probed through the tunnel; who registers there always is."""
    return bool(pool.registration) or (pool.health.type != "none" and pool.health.via == "tunnel")


def next_hops(facts: NodeFacts) -> Iterator[Finding]:
    """Name backends that cannot be reached, or not by all of their ways."""
    if facts.status is None:
        return
    for pool in facts.status.pools:
        found = list(_hops_of(pool))
        if not found:
            count = len(pool.backends)
            yield ok("next hops", f"pool {pool.name}: all {count} backends have theirs")
        yield from found


def _hops_of(pool: PoolStatus) -> Iterator[Finding]:
    if not any(backend.hops for backend in pool.backends):
        fix = "ip route get " + " ; ip route get ".join(str(b.address) for b in pool.backends[:3])
        yield broken("next hops", f"pool {pool.name}: no backend can be reached", "no traffic", fix)
        return
    for backend in pool.backends:
        at = f"pool {pool.name}, backend {backend.name}"
        fix = f"ip route get {backend.address}; ip neigh show"
        if not backend.hops:
            why = "it gets no traffic; its share goes to the others"
            yield broken("next hops", f"{at}: {backend.reason or 'none'}", why, fix)
        elif backend.reason:
            why = "its traffic goes by the ways that are left"
            yield warn("next hops", f"{at}: {backend.reason}", why, fix)


def health(facts: NodeFacts) -> Iterator[Finding]:
    """Name backends that are down, and why."""
    if facts.status is None:
        return
    for pool in facts.status.pools:
        down = [b for b in pool.backends if b.hops and b.condition == "down"]
        forced = [b for b in pool.backends if b.condition == "failed_open"]
        for backend in forced:
            what = f"pool {pool.name}, backend {backend.name}: {backend.health_reason}"
            why = "too few of the pool are left, so it stays in service though its check fails"
            yield warn("health", what, why, "lbfwd doctor backend  # on the backend")
        for backend in down:
            yield broken(
                "health",
                f"pool {pool.name}, backend {backend.name}: {backend.health_reason}",
                f"down since {backend.since:%Y-%m-%d %H:%M:%S} UTC",
                "lbfwd doctor backend  # on the backend",
            )
        if not down and not forced:
            yield ok("health", f"pool {pool.name}: no backend is down")


def detection(facts: NodeFacts) -> Iterator[Finding]:
    """Tell how long a dead backend goes unnoticed."""
    if facts.config is None:
        return
    by_time: dict[float | None, list[str]] = defaultdict(list)
    for pool in facts.config.pools:
        by_time[detection_s(pool)].append(pool.name)
    for seconds, names in by_time.items():
        pools = f"pool {', '.join(names)}"
        edit = f"editor {facts.config_file}  # [pool.health] "
        if seconds is None:
            why = "a backend that is dead goes on getting its share"
            what = f"{pools}: no health check"
            yield warn("detection", what, why, f'{edit}type = "tcp"; then lbfwd reload')
        elif seconds > SLOW_S:
            what = f"{pools}: a dead backend is noticed after up to {seconds:g} s"
            why = "interval_ms * fall + timeout_ms; until then its share of new flows is lost"
            yield warn("detection", what, why, f"{edit}interval_ms, fall; then lbfwd reload")
        else:
            yield ok("detection", f"{pools}: noticed after up to {seconds:g} s")


def detection_s(pool: Pool) -> float | None:
    """Return the time to detect a failure in seconds; None: it is not looked for.

    Backends that register are asked for a token, whatever the check.
    """
    check = pool.health
    if check.type == "none" and (pool.backends or not pool.registration):
        return None
    return (check.interval_ms * check.fall + check.timeout_ms) / 1000
