"""A few kills of what `python -m tests.soak.kill` does a hundred times. In a process of its own, since it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_studio_killed_while_it_writes_loses_nothing():
    command = [sys.executable, "-m", "tests.soak.kill", "--times", "3", "--no-mount"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 kills: " in done.stdout and "none lost" in done.stdout and "full disk: " in done.stdout
