"""Backends that register themselves, over HTTPS and in etcd: what clients and operators see.

client ── router ── node, and backends a, b, c    (tests/topology/fleet/registration_site.py)
"""

from pathlib import Path

import pytest

from lbfwd.demo.lab import eventually
from tests.topology.fleet.registration_site import (
    HOLD_S,
    LEASE_S,
    START_S,
    TOKEN,
    Backend,
    Site,
    kill,
    registration_site,
)
from tests.topology.health.tunnel_site import chain, rules

pytestmark = pytest.mark.topology
MARGIN_S = 3.0


OFTEN, SELDOM = "https", pytest.param("etcd", marks=pytest.mark.slow)


@pytest.mark.parametrize("way", [OFTEN, SELDOM])
def test_a_backend_comes_and_goes_by_itself(tmp_path: Path, way: str) -> None:
    with registration_site(tmp_path, way) as site:
        a = site.join("a")
        shown = site.until("a", "up")
        assert shown["registration"]["source"] == way
        assert shown["registration"]["state"] == "active"
        assert site.names(4) == {"a"}
        who_does_not_unwrap_gets_nothing(site)
        paused_ones_keep_their_connections(site)
        kill(a)
        site.until("a", "", LEASE_S + HOLD_S + MARGIN_S)
        assert site.names(4) == {"b"}


def who_does_not_unwrap_gets_nothing(site: Site) -> None:
    b = site.backends["b"]
    with rules(b.host, chain("prerouting", "meta l4proto gre drop")):
        site.join("b")
        shown = site.until("b", "joining")
        eventually(lambda: "no answer" in site.backend("b")["health_reason"], START_S, "a probe")
        assert (shown["weight_in_force"], site.names(8)) == (0, {"a"})
        assert "joining" in b.tell("status").stdout
    site.until("b", "up")
    eventually(lambda: site.names() == {"a", "b"}, START_S, "both serve")


def paused_ones_keep_their_connections(site: Site) -> None:
    downloads = [site.download(f"file{number}") for number in range(6)]
    eventually(lambda: site.backend("b")["flows"] > 0, START_S, "b serves a download")
    done = site.backends["b"].tell("pause")
    assert done.returncode == 0, done.stderr
    site.until("b", "paused")
    assert site.names(8) == {"a"}
    assert all(download.is_whole() for download in downloads)
    assert site.backends["b"].tell("resume").returncode == 0
    site.until("b", "up")


@pytest.mark.parametrize("way", ["etcd", pytest.param("https", marks=pytest.mark.slow)])
def test_who_may_not_is_refused_by_name(tmp_path: Path, way: str) -> None:
    with registration_site(tmp_path, way) as site:
        site.join("a")
        site.until("a", "up")
        (tmp_path / "wrong").write_text(TOKEN[::-1])
        (tmp_path / "wrong").chmod(0o600)
        b, c = site.backends["b"], site.backends["c"]
        address = c.place.address
        assert f"address {address}: outside what pool" in refusal(c, site.options("c"))
        assert "token_file" in refusal(b, site.options("b", token="wrong"))
        stolen = refusal(b, site.options("b", name="a"))
        assert 'name "a": is that of another backend (10.0.1.2)' in stolen
        assert 'address 10.0.1.2: is that of backend "a"' in refusal(
            b, site.options("b", address="10.0.1.2")
        )
        assert "([pool.register])" in refusal(b, site.options("b", pool="mail"))
        assert site.backend("a")["condition"] == "up"
        assert site.names(4) == {"a"}
        (pool,) = site.node.status()["pools"]
        assert [backend["name"] for backend in pool["backends"]] == ["a"]


def refusal(backend: Backend, options: list[str]) -> str:
    """Have somebody join who may not; returns the reason given."""
    done = backend.run("join", *options)
    assert done.returncode == 1, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("lbfwd backend: "))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["https", "etcd"])
def test_a_crash_of_the_agent_alone_is_noticed_by_its_lease(tmp_path: Path, way: str) -> None:
    """Packets are unwrapped by another process: no probe fails, whatever becomes of the agent."""
    with registration_site(tmp_path, way) as site:
        site.backends["a"].start(*site.backends["a"].unwrap)
        agent = site.join_beside("a")
        site.join("b")
        for name in ("a", "b"):
            site.until(name, "up")
        eventually(lambda: site.names() == {"a", "b"}, START_S, "both serve")
        kill(agent)
        site.until("a", "gone", LEASE_S + MARGIN_S)
        assert site.names(8) == {"b"}
        again = site.join_beside("a")
        site.until("a", "up")
        assert not [e for e in site.node.events("backend_unregistered") if e["backend"] == "a"]
        kill(again)
        site.until("a", "", LEASE_S + HOLD_S + MARGIN_S)
        assert site.names(8) == {"b"}
        assert site.kept() == ["b"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["https", "etcd"])
def test_registrations_outlive_the_supervisor(tmp_path: Path, way: str) -> None:
    with registration_site(tmp_path, way) as site:
        for name in ("a", "b"):
            site.join(name)
            site.until(name, "up")
        eventually(lambda: site.names() == {"a", "b"}, START_S, "both serve")
        assert site.kept() == ["a", "b"]
        # Killed: its workers go on forwarding until the next one has taken over.
        site.node.process.kill()
        site.node.process.wait()
        download = site.download("file")
        if way == "etcd":
            site.etcd.kill()
            site.etcd.wait()
        site.node.log_file.unlink()
        site.node = site.start_node()
        assert [site.backend(name)["condition"] for name in "ab"] == ["up", "up"]
        assert not site.node.events("backend_gone")
        assert download.is_whole()
        assert site.names() == {"a", "b"}


@pytest.mark.slow
def test_leaving_waits_for_live_connections(tmp_path: Path) -> None:
    with registration_site(tmp_path, "https") as site:
        a = site.join("a")
        site.until("a", "up")
        download = site.download("file")
        eventually(lambda: site.backend("a")["flows"] > 0, START_S, "a serves the download")
        done = site.backends["a"].tell("leave", "--drain", "30")
        assert (done.returncode, done.stdout) == (0, "left: no live flow\n")
        assert download.is_whole(1.0), "it was over before"
        assert a.wait(START_S) == 0
        site.until("a", "")
        assert site.kept() == []


@pytest.mark.slow
def test_a_change_of_the_file_is_about_the_operators_part(tmp_path: Path) -> None:
    with registration_site(tmp_path, "https") as site:
        site.join("a")
        site.until("a", "up")
        text = site.node.file.read_text()
        fixed = '{ name = "fixed", address = "10.0.2.2" }'
        done = site.node.reload(text.replace("backends = []", f"backends = [{fixed}]"))
        assert (done.returncode, done.stdout.count("->")) == (0, 1), done.stdout
        assert site.backend("fixed")["registration"] is None
        assert site.backend("a")["condition"] == "up"
        stolen = refusal(site.backends["b"], site.options("b", name="fixed"))
        assert 'name "fixed": is that of a configured backend (10.0.2.2)' in stolen
        # Who is not allowed any more is out at once, and told so.
        done = site.node.reload(text.replace('"10.0.1.0/24", ', ""))
        assert done.returncode == 0, done.stderr
        site.until("a", "")
        eventually(lambda: "outside what pool" in site.backends["a"].log(), START_S, "a knows why")
        assert site.node.reload(text).returncode == 0
        site.until("a", "up")


@pytest.mark.slow
def test_a_pool_without_a_check_notices_broken_decapsulation_by_the_token(tmp_path: Path) -> None:
    with registration_site(tmp_path, "https", health="") as site:
        for name in ("a", "b"):
            site.join(name)
            site.until(name, "up")
        eventually(lambda: site.names() == {"a", "b"}, START_S, "both serve")
        with rules(site.backends["b"].host, chain("prerouting", "meta l4proto gre drop")):
            shown = site.until("b", "down")
            assert "token 192.0.2.10 through the tunnel to 10.0.2.2" in shown["health_reason"]
            assert site.names(8) == {"a"}
        site.until("b", "up", 40.0)
