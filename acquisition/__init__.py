"""Acquisition functions and their optimiser."""

if __name__ != "gpbo.acquisition":
    raise ImportError("import this package as gpbo.acquisition, not as a top-level 'acquisition'")
