"""Where the configuration comes from: a file, and flags that stand for its ``[workers]``."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbfwd.config import Config, ConfigError, Problem, load
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.load import read, read_etcd
from lbfwd.config.machine import this_machine
from lbfwd.config.once import Memo
from lbfwd.config.shared import Shared
from lbfwd.config.warn import warnings

QUIET_S = 0.1  # a file that was written to so lately may be half of what its writer means
PATIENCE_S = 3.0


@dataclass(frozen=True)
class Source:
    """``workers``: what the command line sets."""

    path: Path
    workers: Mapping[str, object]
    memo: Memo = field(default_factory=Memo, compare=False)

    def read(self, shared: Shared | None = None) -> Config:
        """Read and check against this machine, when nobody writes to the file. Blocks.

        ``shared``: the part that etcd holds. Raises ConfigError or OSError.
        """
        self._wait_for_its_writer()
        return load(self.path, self.workers, this_machine(), shared, self.memo)

    def apart(self) -> "Source":
        """Return it for what is only looked at: it forgets nothing of what was read to be used."""
        return replace(self, memo=self.memo.apart())

    def read_etcd(self) -> EtcdSettings:
        """Read what the file says of etcd. Blocks. Raises ConfigError."""
        self._wait_for_its_writer()
        return read_etcd(self.path)

    def read_text(self, text: str, path: Path, shared: Shared | None = None) -> Config:
        """Read another file's text in the same way. Blocks. Raises ConfigError or OSError."""
        return read(text, path, self.workers, this_machine(), shared, self.memo)

    def warn(self, config: Config) -> tuple[str, ...]:
        """Return what an operator should look at again. Blocks."""
        found = warnings(config, str(self.path), flags=tuple(self.workers))
        return tuple(map(str, found))

    def _wait_for_its_writer(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._is_being_written():
            if time.monotonic() > deadline:
                rule = "is being written to: try again when it is whole"
                raise ConfigError([Problem(str(self.path), "", "", rule)])
            time.sleep(QUIET_S / 4)

    def _is_being_written(self) -> bool:
        try:
            age_s = time.time() - self.path.stat().st_mtime
        except OSError:  # the reader says why
            return False
        return 0 <= age_s < QUIET_S
