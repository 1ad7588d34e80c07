"""Updates: a statistic takes in a batch. One file for each kind of state."""
