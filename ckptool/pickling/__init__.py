"""Pickles as inert trees: bytes in, nodes out, nothing run in between."""
