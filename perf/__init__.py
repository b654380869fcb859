"""Measures the mesh: latency, counts of messages, throughput, memory. Run with ``make bench``; never asserts a time."""
