"""Hours of use in minutes, run by hand: python -m tests.soak.kill, python -m tests.soak.load."""
