"""Lightning tasks and the training loop of one cell."""
