"""Measure how long `wbvla --help` and each verb's --help take from process start to exit, best of five.

In: nothing. Out: one JSON line on stdout with the machine, the method and milliseconds.
Run: .venv/bin/python benchmarks/bench_startup.py
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time

from wbvla import __version__
from wbvla.cli import VERBS


def best_ms(arguments: list[str], repeats: int = 5) -> float:
    """Return the shortest wall time in milliseconds of one command line."""
    times_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "wbvla.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        times_s.append(time.perf_counter() - start)
    return round(1e3 * min(times_s), 1)


if __name__ == "__main__":
    report = {
        "benchmark": "startup",
        "wbvla": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "method": "wall time of the whole process, best of 5",
        "help_ms": best_ms(["--help"]),
        "verb_help_ms": {name: best_ms([*name.split(), "--help"]) for name in VERBS},
    }
    print(json.dumps(report))
