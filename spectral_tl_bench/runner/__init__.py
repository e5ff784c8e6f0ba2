"""Plan cells, run them, leave one record each."""
