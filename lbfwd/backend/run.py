"""A backend's life: claim, look, plan, change, keep, undo."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import structlog

from lbfwd.backend import sysctl
from lbfwd.backend.claim import claim
from lbfwd.backend.decap import Decapsulator
from lbfwd.backend.filter import Filter, ruleset
from lbfwd.backend.kernel import Kernel
from lbfwd.backend.parts import ReplyRoutes, Vips
from lbfwd.backend.plan import GRE_DEVICES, TUN_DEVICE, Plan, advertised_mss, make_plan
from lbfwd.backend.request import BackendError, Request
from lbfwd.backend.sysctl import Sysctls
from lbfwd.backend.watch import Watch
from lbfwd.supervisor import capabilities
from lbfwd.supervisor.notify import Notifier

Beside = Callable[[Callable[[], None]], AbstractContextManager[object]]
"""Makes what goes on beside; it is given what ends the backend."""
Part = Filter | ReplyRoutes | Vips

SETTLE_S = 0.1  # a change of routes seldom comes alone
REPORT_S = 10.0  # how often losses are looked at

log = structlog.get_logger()


def run(request: Request, beside: Beside = lambda _stop: nullcontext()) -> None:
    """Be a backend until SIGTERM, SIGINT or SIGHUP, then undo all of it.

    ``beside``: begins when all is in place, and ends before anything is undone. Raises
    BackendError, after undoing what was done.
    """
    missing = capabilities.missing_here()
    if missing:
        raise BackendError(f"{', '.join(missing)} missing: run as root")
    notifier = Notifier.inherited()
    with ExitStack() as undo:
        watch = undo.enter_context(Watch())
        undo.enter_context(claim())
        kernel = undo.enter_context(Kernel())
        _remove_leftovers(kernel)
        plan = make_plan(request, kernel.machine(request))
        decapsulator = Decapsulator(kernel, request.node_families(), plan.tunnel_mtu)
        undo.callback(log.info, "backend_stopped")
        parts = _set_up(undo, kernel, plan, decapsulator)
        decapsulator.start(watch.stop)
        _tell_ready(plan, decapsulator)
        notifier.tell("READY=1")
        with beside(watch.stop):
            _keep(watch, parts, decapsulator, notifier)
            notifier.stopping()
        log.info("backend_stopping", **decapsulator.totals())
    if decapsulator.failed:
        raise BackendError("decapsulation failed (see the log); everything was undone")


def _set_up(
    undo: ExitStack, kernel: Kernel, plan: Plan, decapsulator: Decapsulator
) -> tuple[Part, ...]:
    """Change the machine, each step beside its inverse.

    The order: nobody gets in before the filter stands, and no ARP answer or connection meets a VIP
    before everything else is ready for it. Undoing goes the other way round.
    """
    request = plan.request
    devices = (*GRE_DEVICES.values(), TUN_DEVICE)
    parts: list[Part] = [Filter(ruleset(request.nodes, request.vips, devices))]
    undo.callback(parts[0].remove)
    parts[0].sync()
    undo.callback(decapsulator.close)
    decapsulator.open()
    sysctls = Sysctls()
    undo.callback(sysctls.restore)
    _set_sysctls(sysctls, request, decapsulator.devices)
    decapsulator.bring_up()
    for part in (ReplyRoutes(kernel, plan), Vips(kernel, plan.add_vips)):
        undo.callback(part.remove)
        part.sync()
        parts.append(part)
    return tuple(parts)


def _set_sysctls(sysctls: Sysctls, request: Request, devices: tuple[str, ...]) -> None:
    for device in devices if sysctl.ipv6_present() else ():
        sysctls.apply(sysctl.tunnel_settings(device, ipv6=6 in request.vip_families()))
    if 4 in request.vip_families():
        sysctls.apply(sysctl.arp_settings(sysctl.read_arp()))
        sysctls.apply(sysctl.rp_filter_settings(sysctl.read_rp_filters(), devices))


def _remove_leftovers(kernel: Kernel) -> None:
    """Remove what a backend that was killed left: the claim is ours, so nobody uses it."""
    for device in GRE_DEVICES.values():  # a TUN device went with its process
        kernel.remove_device(device)
    for leftover in kernel.remove_leftovers():
        log.warning("leftover_removed", what=leftover, reason="a backend was killed")


def _tell_ready(plan: Plan, decapsulator: Decapsulator) -> None:
    request = plan.request
    log.info(
        "backend_ready",
        vips=[str(vip) for vip in request.vips],
        nodes=[str(node) for node in request.nodes],
        decapsulation=decapsulator.way,
        devices=list(decapsulator.devices),
        tunnel_mtu=plan.tunnel_mtu,
        mss={f"IPv{f}": advertised_mss(plan.tunnel_mtu, f) for f in request.vip_families()},
        table=plan.table,
    )


def _keep(
    watch: Watch, parts: tuple[Part, ...], decapsulator: Decapsulator, notifier: Notifier
) -> None:
    """Keep things as they were set up, and tell what gets lost, until it is time to stop.

    Raises BackendError when a tunnel device is gone.
    """
    losses = decapsulator.losses()
    while watch.wait(REPORT_S):
        notifier.feed_watchdog()
        if watch.settle(SETTLE_S):
            decapsulator.keep_up()
            _sync(parts)
        if (now := decapsulator.losses()) != losses:
            log.warning("decapsulation_losses", **{k: now[k] - losses[k] for k in now})
            losses = now


def _sync(parts: tuple[Part, ...]) -> None:
    for part in parts:
        try:
            part.sync()
        except BackendError as error:  # tried again at the next event
            log.error("part_not_kept", part=type(part).__name__, reason=str(error))
