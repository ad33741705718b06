"""The wheel and the sdist, each in a clean virtual environment far from the source tree."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd import __version__
from lbfwd.demo.lab import Lab

pytestmark = [pytest.mark.topology, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
NOT_SOURCE = shutil.ignore_patterns(
    ".*cache", ".git", ".venv", ".hypothesis", "__pycache__", "build", "dist", "*.so", "*.egg-info"
)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both from a copy of the tree, as `make dist` does: the wheel from the sdist."""
    place = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, place / "source", ignore=NOT_SOURCE)
    run(sys.executable, "-m", "build", "--outdir", place / "dist", place / "source")
    return place / "dist"


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"])
def installed(
    request: pytest.FixtureRequest,
    distributions: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """The folder of programs of an environment with nothing but lbfwd."""
    (distribution,) = distributions.glob(request.param)
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin/pip", "install", "-qq", distribution)
    yield venv / "bin"
    shutil.rmtree(venv)


def run(*command: str | Path, cwd: Path = Path("/")) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_sdist_holds_what_a_build_and_the_tests_need(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for pattern in ("lbfwd/*.h", "lbfwd/*.c", "workers/*.py", "deploy/*", "tests/**/*.py"):
        missing = {str(p.relative_to(ROOT)) for p in ROOT.glob(pattern)} - names
        assert missing - {"lbfwd/_ringlib.c"} == set(), pattern
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "docs/install.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc", "_ringlib.c"))]


def test_the_wheel_holds_every_module(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "lbfwd").rglob("*.py")}
    modules |= {f"lbfwd/{p.relative_to(ROOT)}" for p in (ROOT / "workers").glob("*.py")}
    assert modules - names == set()
    assert any(name.startswith("lbfwd/_ringlib.") and name.endswith(".so") for name in names)
    assert "lbfwd/py.typed" in names


def test_it_knows_its_version(installed: Path) -> None:
    assert run(installed / "lbfwd", "--version") == f"lbfwd {__version__}\n"


def test_workers_can_be_imported(installed: Path) -> None:
    code = "import lbfwd.workers.forward as f; print(f.__file__)"
    assert run(installed / "python", "-c", code).strip().startswith(str(installed.parent))


def test_the_example_configuration_is_good(installed: Path, tmp_path: Path) -> None:
    example = (ROOT / "deploy/lbfwd.toml").read_text()
    assert "/etc/lbfwd/hash_key" in example
    key = tmp_path / "hash_key"
    key.touch(mode=0o600)
    key.write_text("00112233445566778899aabbccddeeff\n")
    config = tmp_path / "lbfwd.toml"
    cpus = sorted(os.sched_getaffinity(0))[:2]
    text = example.replace("/etc/lbfwd/hash_key", str(key)).replace("cpus = [0, 1]", f"{cpus=!s}")
    config.write_text(text)
    with Lab() as lab:
        node, router = lab.host("node"), lab.host("router")
        lab.link(node, "eth0", ["203.0.113.10/24"], router, "eth0", [])
        node.run(str(installed / "lbfwd"), "check", str(config))


def test_the_demo_runs_from_it(installed: Path) -> None:
    assert "All of it right" in run(installed / "lbfwd", "demo")
