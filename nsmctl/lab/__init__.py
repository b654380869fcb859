"""The world on one machine: nodes, workloads, probes, faults."""
