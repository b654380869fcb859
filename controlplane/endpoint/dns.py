"""The DNS configurations an endpoint gives its clients (reference §3.14)."""

from collections.abc import Iterable
from dataclasses import replace

from nsm.model.context import ConnectionContext, DnsConfig, DnsContext


def with_dns(context: ConnectionContext, configs: Iterable[DnsConfig]) -> ConnectionContext:
    """The context with each of these configurations in it once, after those of other hops.

    A DNS context is present afterwards, as upstream makes one even for no configuration.
    """
    present = context.dns_context or DnsContext()
    known = {(config.dns_server_ips, config.search_domains) for config in present.configs}
    added = []
    for config in configs:
        if (config.dns_server_ips, config.search_domains) not in known:
            known.add((config.dns_server_ips, config.search_domains))
            added.append(config)
    return replace(context, dns_context=replace(present, configs=(*present.configs, *added)))
