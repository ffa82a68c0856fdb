"""What the pickles in a file would import and call, and what is wrong with the file around them."""
