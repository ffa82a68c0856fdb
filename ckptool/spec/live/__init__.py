"""A model as the user's own code builds it: the only rooms that import torch.

The user names the code on the command line; nothing that a checkpoint names is run here.
"""
