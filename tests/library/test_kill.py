"""Three of the kills that `python -m tests.soak.kill` does a hundred times; in a process of its own, since it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_killed_studio_loses_nothing():
    command = [sys.executable, "-m", "tests.soak.kill", "--times", "3", "--no-mount"]
    process = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "3 kills: " in process.stdout and "none lost" in process.stdout and "full disk: " in process.stdout
