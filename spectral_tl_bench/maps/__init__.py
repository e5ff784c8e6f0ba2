"""Trained weights applied to images of one's own: class maps as GeoTIFFs."""
