"""Whole-process time and peak memory of ckptool beside torch's own: `make bench`."""
