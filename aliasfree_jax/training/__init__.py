"""Training: one loop and one step for all networks."""
