"""The versions of the stored schema."""
