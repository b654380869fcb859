"""A client of network services: requests, refresh, heal, DNS."""
