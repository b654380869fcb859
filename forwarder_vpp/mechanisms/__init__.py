"""Negotiation of mechanisms, one file each: parameters, offer, accept, MTU overhead. Pure."""
