"""What remembers the trials."""
