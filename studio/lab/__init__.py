"""Teaching: forward noise, schedules, one's own runs taken apart, points in the plane. Arrays come out, no pages."""
