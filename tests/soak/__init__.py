"""Hours of use in minutes, run by hand: python -m tests.soak.kill, tests.soak.load, tests.soak.mixed."""
