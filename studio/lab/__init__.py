"""Teaching: forward noise, schedules, runs step by step, points in two dimensions. Results are arrays and JSON."""
