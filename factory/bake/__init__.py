"""Baking: what must be baked and why (`closure`, `key`, `plan`: pure), and the baking of it (`pipeline` and below)."""
