"""Backbones and decoders that methods are built from."""
