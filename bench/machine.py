"""Where a figure was measured: without that it says nothing."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """Return processor, cores and kernel."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
    }
