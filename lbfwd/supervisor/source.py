"""Where the configuration comes from: a file, and flags that stand for its ``[workers]``."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lbfwd.config import Config, ConfigError, Problem, load
from lbfwd.config.load import read
from lbfwd.config.machine import this_machine
from lbfwd.config.once import Memo
from lbfwd.config.warn import warnings

QUIET_S = 0.1  # a file that was written to so lately may be half of what its writer means
PATIENCE_S = 3.0


@dataclass(frozen=True)
class Source:
    """``workers``: what the command line sets."""

    path: Path
    workers: Mapping[str, object]
    memo: Memo = field(default_factory=Memo, compare=False)

    def read(self) -> Config:
        """Read and check against this machine, when nobody writes to the file. Blocks.

        Raises ConfigError or OSError.
        """
        deadline = time.monotonic() + PATIENCE_S
        while self._is_being_written():
            if time.monotonic() > deadline:
                rule = "is being written to: try again when it is whole"
                raise ConfigError([Problem(str(self.path), "", "", rule)])
            time.sleep(QUIET_S / 4)
        return load(self.path, self.workers, this_machine(), self.memo)

    def read_text(self, text: str, path: Path) -> Config:
        """Read another file's text in the same way. Blocks. Raises ConfigError or OSError."""
        return read(text, path, self.workers, this_machine(), self.memo)

    def warn(self, config: Config) -> tuple[str, ...]:
        """Return what an operator should look at again. Blocks."""
        found = warnings(config, str(self.path), flags=tuple(self.workers))
        return tuple(map(str, found))

    def _is_being_written(self) -> bool:
        try:
            age_s = time.time() - self.path.stat().st_mtime
        except OSError:  # the reader says why
            return False
        return 0 <= age_s < QUIET_S
