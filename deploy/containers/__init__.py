"""The demonstration with containers: VPP and the agent apart, workloads without a network (``make demo-container``)."""
