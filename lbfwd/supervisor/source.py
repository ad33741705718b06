"""Where the configuration comes from: a file, and flags that stand for its ``[workers]``."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbfwd.config import Config, ConfigError, Problem, load
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.load import read, read_etcd, replaces
from lbfwd.config.machine import this_machine
from lbfwd.config.once import Memo
from lbfwd.config.shared import Shared
from lbfwd.config.warn import warnings

QUIET_S = 0.1  # a file that was written to so lately may be half of what its writer means
TICK_S = 0.02  # longer than one of the clock that files are dated by (4 or 10 ms)
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
        return self._read_ahead(shared) or self._read_when_quiet(shared)

    def _read_ahead(self, shared: Shared | None) -> Config | None:
        """Read while its writer is only waited for; None: he went on, or it makes no sense yet."""
        if not self._is_being_written(QUIET_S):
            return None
        self._wait_for_its_writer(TICK_S)
        seen = self._seen()
        try:
            config = load(self.path, self.workers, this_machine(), shared, self.memo)
        except ConfigError:
            return None
        self._wait_for_its_writer(QUIET_S)
        return config if self._seen() == seen else None

    def _read_when_quiet(self, shared: Shared | None) -> Config:
        self._wait_for_its_writer(QUIET_S)
        return load(self.path, self.workers, this_machine(), shared, self.memo)

    def apart(self) -> "Source":
        """Return it for what is only looked at: it forgets nothing of what was read to be used."""
        return replace(self, memo=self.memo.apart())

    def read_etcd(self) -> EtcdSettings:
        """Read what the file says of etcd. Blocks. Raises ConfigError."""
        self._wait_for_its_writer(QUIET_S)
        return read_etcd(self.path)

    def replaces(self, shared: Shared) -> bool:
        """Tell whether the file has pools and services itself in the place of a shared part's.

        Blocks. Raises ConfigError.
        """
        self._wait_for_its_writer(QUIET_S)
        return replaces(self.path, shared)

    def read_text(self, text: str, path: Path, shared: Shared | None = None) -> Config:
        """Read another file's text in the same way. Blocks. Raises ConfigError or OSError."""
        return read(text, path, self.workers, this_machine(), shared, self.memo)

    def warn(self, config: Config) -> tuple[str, ...]:
        """Return what an operator should look at again. Blocks."""
        found = warnings(config, str(self.path), flags=tuple(self.workers))
        return tuple(map(str, found))

    def _wait_for_its_writer(self, quiet_s: float) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._is_being_written(quiet_s):
            if time.monotonic() > deadline:
                rule = "is being written to: try again when it is whole"
                raise ConfigError([Problem(str(self.path), "", "", rule)])
            time.sleep(quiet_s / 4)

    def _seen(self) -> tuple[int, ...]:
        """Return what tells whether the file is as it was, but for writes within a tick."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _is_being_written(self, quiet_s: float) -> bool:
        try:
            age_s = time.time() - self.path.stat().st_mtime
        except OSError:  # the reader says why
            return False
        return 0 <= age_s < quiet_s
