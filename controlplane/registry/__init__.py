"""The registry of services and endpoints: Find, watch, expiry, stores."""
