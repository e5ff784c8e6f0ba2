"""Sliding windows, confusion matrices and the metrics that follow from them."""
