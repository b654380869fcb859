"""Shared kernel of the service mesh: model, wire, transport, identity, policy, session, service."""
