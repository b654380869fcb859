"""Loads a connection with packets: TCP throughput and round-trip times."""
