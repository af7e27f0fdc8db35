"""Measurements of the factory, and the soak test: tools of this repository, not part of the product."""
