"""The kernel as dataplane: the node forwards nothing, links join the workloads."""
