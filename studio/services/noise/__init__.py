"""The noise service: forward noise, runs step by step, comparisons, and points in two dimensions."""
