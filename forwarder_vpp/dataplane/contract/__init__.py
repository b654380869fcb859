"""What the planner and the reconciler know of any dataplane: items, keys, descriptors."""
