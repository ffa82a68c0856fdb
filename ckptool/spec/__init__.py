"""What a model is made of: its parameters and buffers by name, and how it loads a state_dict."""
