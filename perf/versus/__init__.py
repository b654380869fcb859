"""The same load on the Go chain and on ours, side by side: ``make bench-go``."""
