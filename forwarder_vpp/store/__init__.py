"""What outlives the agent: the intent of each connection and the values chosen for it, never items or handles."""
