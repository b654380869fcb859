"""The pure rooms under pytest-benchmark: ``make bench ARGS=micro``."""
