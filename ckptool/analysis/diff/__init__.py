"""Two checkpoints into what changed between them."""
