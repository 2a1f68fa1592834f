"""A driver to copy: complete, tested, and not registered."""
