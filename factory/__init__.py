"""factory bakes golden machine images, proves what they are, and replaces running machines with them."""

__version__ = "0.1.0"
