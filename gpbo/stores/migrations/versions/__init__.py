"""One module for each version of the stored schema."""
