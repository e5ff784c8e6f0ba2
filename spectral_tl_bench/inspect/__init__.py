"""Looking into a method or a backbone without training it: sizes, places, tokens."""
