"""How much of a trial is run before it is judged."""

from gpbo.schedulers import rungs

__all__ = ["rungs"]
