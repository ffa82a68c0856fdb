"""Torch's vocabulary: dtypes, storages, tensors, and the calls that rebuild them."""
