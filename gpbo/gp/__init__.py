"""The Gaussian process: hyper-parameters, fit, posterior."""
