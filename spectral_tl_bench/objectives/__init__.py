"""Training objectives for several source domains, to be combined with any method."""
