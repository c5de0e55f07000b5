"""Training: one loop, one step, for all networks."""
