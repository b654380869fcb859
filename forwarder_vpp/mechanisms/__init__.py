"""Negotiation of each mechanism: parameters, offer, accept, MTU overhead. Pure."""
