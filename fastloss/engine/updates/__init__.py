"""How a statistic takes in a batch: one file for each kind of state."""
