"""What each entry is, with the evidence that says so."""
