"""What is computed over a classified checkpoint."""
