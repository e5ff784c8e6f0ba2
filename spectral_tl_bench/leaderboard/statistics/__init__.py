"""Statistics of the boards: bootstrap over places, paired comparison, means over benchmarks."""
