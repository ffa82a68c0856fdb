"""A file as a `Checkpoint`: entries with key paths, and which subtree is the state_dict."""
