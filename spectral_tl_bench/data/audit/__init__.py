"""What separates the two sides of a benchmark, measured: ground, copies, classes, bands; before anything trains."""
