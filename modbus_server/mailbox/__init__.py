"""Registers bound to tags: what clients write goes onto the bus, what the bus tells is shown to clients."""
