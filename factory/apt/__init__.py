"""apt while baking: a caching proxy with frozen snapshots, pins, and what a tree has installed."""
