"""What a running backend does between its start and its end."""

from unittest.mock import Mock, call

from lbfwd.backend import run
from lbfwd.supervisor.notify import Notifier


class Watch:
    """Wakes up a few times: each entry tells whether there were events."""

    def __init__(self, *events):
        self.events = list(events)

    def wait(self, _timeout_s):
        return bool(self.events)

    def settle(self, _quiet_s):
        return self.events.pop(0)


def keep(monkeypatch, watch, losses, part=None):
    log = Mock()
    monkeypatch.setattr(run, "log", log)
    decapsulator = Mock(losses=Mock(side_effect=losses))
    run._keep(watch, (part or Mock(),), decapsulator, Notifier())
    return log


def test_losses_are_told_by_what_was_added(monkeypatch):
    losses = [{"refused": 1}, {"refused": 1}, {"refused": 4}, {"refused": 5}]
    log = keep(monkeypatch, Watch(False, False, False), losses)
    assert log.warning.mock_calls == [
        call("decapsulation_losses", refused=3),
        call("decapsulation_losses", refused=1),
    ]


def test_only_events_make_it_look_at_the_kernel(monkeypatch):
    part = Mock()
    keep(monkeypatch, Watch(False, True, False, True), [{}] * 5, part)
    assert part.sync.call_count == 2


def test_a_part_that_cannot_be_kept_is_told_and_tried_again(monkeypatch):
    part = Mock(sync=Mock(side_effect=[run.BackendError("no way"), None]))
    log = keep(monkeypatch, Watch(True, True), [{}] * 3, part)
    assert log.error.mock_calls == [call("part_not_kept", part="Mock", reason="no way")]
    assert part.sync.call_count == 2
