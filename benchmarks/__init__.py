"""Side-by-side measurements: the fleet, its floor, and peers written the usual way."""
