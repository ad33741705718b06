"""Certificates of ours: keys that are refused by name, and never asked a pass phrase for."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lbfwd.api.registration import listening
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.fleet import Registration as Listener
from lbfwd.fleet.etcd import read_access
from lbfwd.fleet.etcd_wire import EtcdError
from lbfwd.supervisor.errors import SupervisorError
from tests.unit.api.test_registration import Enrolling
from tests.unit.health.servers import certificate, openssl

LISTENER = Listener(listen="127.0.0.1:9443", certificate_file="cert.pem", key_file="key.pem")


def refusal(directory: Path) -> str:
    async def main() -> None:
        async with listening(Enrolling(), LISTENER, directory, lambda: 0.0):
            pass

    with pytest.raises(SupervisorError) as caught:
        asyncio.run(main())
    return str(caught.value)


def encrypt(directory: Path) -> None:
    key = directory / "key.pem"
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", directory / "new")
    (directory / "new").replace(key)
    key.chmod(0o600)


def test_an_encrypted_key_is_refused_by_its_name(tmp_path: Path) -> None:
    certificate(tmp_path, "lb1")
    encrypt(tmp_path)
    said = refusal(tmp_path)
    assert said.startswith('[registration] key_file = "key.pem": is encrypted, and nobody can')


def test_nobody_is_asked_on_the_terminal(tmp_path: Path) -> None:
    """With a terminal of its own: what OpenSSL asks would come there, and be waited for."""
    certificate(tmp_path, "lb1")
    encrypt(tmp_path)
    load = (
        "import ssl, sys; from pathlib import Path; from lbfwd.fleet.tls import load_identity\n"
        "load_identity(ssl.create_default_context(), *map(Path, sys.argv[1:]))"
    )
    files = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    command = ["script", "-qec", " ".join([sys.executable, "-c", f"'{load}'", *files]), "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Enter" not in done.stdout
    assert "is encrypted" in done.stdout


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    certificate(tmp_path, "lb1")
    (tmp_path / "key.pem").chmod(mode)
    rule = f"group and others must have no access (mode {mode:04o}): chmod 0600"
    assert refusal(tmp_path) == f'[registration] key_file = "key.pem": {rule}'


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (encrypt, "is encrypted, and nobody can"),
        (lambda directory: (directory / "key.pem").chmod(0o644), "group and others must have no"),
    ],
)
def test_the_same_holds_for_the_key_that_etcd_is_shown(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    certificate(tmp_path, "lb1")
    spoil(tmp_path)
    settings = EtcdSettings(
        endpoints=("https://127.0.0.1:2379",), certificate_file="cert.pem", key_file="key.pem"
    )
    with pytest.raises(EtcdError) as caught:
        read_access(settings, tmp_path)
    assert str(caught.value).startswith(f'[etcd] key_file = "key.pem": {said}')


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    certificate(tmp_path, "lb1")
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-out", tmp_path / "key.pem")  # fmt: skip
    (tmp_path / "key.pem").chmod(0o600)
    said = refusal(tmp_path)
    assert said.startswith('[registration] certificate_file = "cert.pem", key_file = "key.pem": ')
