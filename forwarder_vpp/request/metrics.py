"""What a forwarder writes into its path segment, under upstream's names (reference §2.11; forwarder §3.8).

Upstream calls the half that faces the client ``server`` and the half that faces the endpoint ``client``.
"""

from collections.abc import Mapping

from forwarder_vpp.dataplane.contract.dataplane import Counters
from nsm.model.mechanism import INTERFACE_NAME, Mechanism


def interfaces(towards_client: Mechanism, towards_endpoint: Mechanism) -> dict[str, str]:
    """``server_interface`` and ``client_interface`` as ``TYPE/name``."""
    return {
        "server_interface": f"{towards_client.type}/{towards_client.get(INTERFACE_NAME)}",
        "client_interface": f"{towards_endpoint.type}/{towards_endpoint.get(INTERFACE_NAME)}",
    }


def counters(pair: tuple[Counters, Counters]) -> Mapping[str, str]:
    """``server_rx_bytes`` and so on; ``pair`` = (client end, endpoint end)."""
    found: dict[str, str] = {}
    for half, counted in zip(("server", "client"), pair, strict=True):
        found |= {
            f"{half}_rx_bytes": str(counted.rx_bytes),
            f"{half}_tx_bytes": str(counted.tx_bytes),
            f"{half}_rx_packets": str(counted.rx_packets),
            f"{half}_tx_packets": str(counted.tx_packets),
            f"{half}_drops": str(counted.drops),
        }
    return found
