"""Figures of a study as plotly makes them: `show()` them, `write_html(path)`, or end a cell with one."""

from gpbo.analysis.history import history
from gpbo.analysis.observed import curves, front, parallel, rungs
from gpbo.analysis.posterior import contour, importance, slices

__all__ = ["contour", "curves", "front", "history", "importance", "parallel", "rungs", "slices"]
