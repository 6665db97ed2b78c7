"""Covariance functions."""

if __name__ != "gpbo.kernels":
    raise ImportError("import this package as gpbo.kernels, not as a top-level 'kernels'")
