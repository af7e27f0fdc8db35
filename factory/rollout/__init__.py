"""Replace a fleet: a new generation of instances beside the old one, traffic shifted, the old one retired, or back.

`machine` decides (pure), `engine` acts and survives its own death, `providers` are where instances run. No instance is
ever changed: a provider can launch, observe, shift and retire, and nothing else.
"""
