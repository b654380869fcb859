"""The dataplanes behind one contract: VPP and the Linux kernel."""
