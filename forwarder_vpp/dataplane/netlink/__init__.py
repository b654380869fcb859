"""Namespaces, links, addresses, routes and rules over netlink; the workload's side of both dataplanes."""
