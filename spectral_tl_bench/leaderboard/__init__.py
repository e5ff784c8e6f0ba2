"""Stored records and the boards that are made from them."""
