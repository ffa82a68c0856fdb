"""Containers: one module per format, and `sniff`, which picks by content."""
