"""A node whose runtime directory is full. Runs in a mount namespace: test_full_file_system.py."""

import os
import subprocess
import sys
from pathlib import Path

from lbfwd.tables import Tables, TablesError
from tests.packet import bench
from tests.packet.bench import Bench
from tests.packet.crafted import frame


def fill(directory: Path) -> None:
    """Take every page that is left."""
    with (directory / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


def forward_on_a_full_file_system(directory: Path) -> None:
    small = bench.forwarding(
        [bench.service(bench.VIP4, "tcp", 84, "p")], [bench.pool("p", [bench.member(4, 11)])]
    )
    node = Bench(directory, small)
    data = frame(4, "tcp")
    fill(directory)
    node.assert_forwarded(data, node.forward(data), [data[14:]])
    node.assert_dropped(node.forward(data[:20]), "truncated")
    large = bench.forwarding(small.services, [bench.pool("p", [bench.member(4, 12)], 1500007)])
    try:
        node.tables.publish(large)
    except TablesError as error:
        sys.stdout.write(f"{error}\n")
    node.assert_forwarded(data, node.forward(data), [data[14:]])
    node.close()


def create_on_a_full_file_system(directory: Path) -> None:
    fill(directory)
    try:
        Tables.create(directory, 1, 1024)
    except OSError as error:
        sys.stdout.write(f"{error.strerror} {os.listdir(directory)}\n")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "lbfwd-test", place], check=True)
    forward_on_a_full_file_system(place)
    (place / "filler").unlink()
    create_on_a_full_file_system(place)
