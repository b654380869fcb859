"""The forwarder: an agent that realises NSM connections on VPP or on the Linux kernel."""
