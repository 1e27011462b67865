"""Describe the machine, take times and format tables for the benchmarks."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

BUSY = 0.3  # load average over the last minute, per core, above which times are not valid


def cpu_name() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """Return one line for the head of a table, without importing torch."""
    parts = [cpu_name(), f"{cores()} cores", f"{platform.system()} {platform.machine()}"]
    parts += [f"Python {platform.python_version()}"]
    parts += [f"{package} {version(package)}" for package in ("torch", "diffusers", "gradio")]
    return ", ".join(parts)


def heading() -> str:
    """Return the command and the machine as Markdown, with a warning if the machine is busy."""
    module = sys.modules["__main__"].__spec__
    command = " ".join(["python -m", module.name if module else sys.argv[0], *sys.argv[1:]])
    load = os.getloadavg()[0]
    text = f"`{command}`\n\n{describe()}\n"
    if load > BUSY * cores():
        text += f"\n**The machine was busy (load average {load:.1f}): the times are not valid.**\n"
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, its first column aligned left and the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def times(call: Callable[[], object], repeats: int, warm_up: int = 2) -> list[float]:
    """Return the seconds of each of `repeats` calls, after `warm_up` untimed ones."""
    for _ in range(warm_up):
        call()
    return [seconds(call) for _ in range(repeats)]


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 2) -> str:
    """Return "median (minimum to maximum)" in units of `unit`."""
    middle, low, high = (value / unit for value in (statistics.median(values), min(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
