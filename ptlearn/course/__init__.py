"""The classroom: what a lesson imports, and the tools that turn lessons into notebooks and submissions into marks.

Read in this order: `session` (arguments, show, progress); `exercise` (check) and its words, `diagnosis`; `lesson` (the
file), `build` (its notebooks) and `outputs` (what they may show); `cli`.
Importing it is cheap: the heavy libraries are imported where they are used.
"""

from ptlearn.course.exercise import check
from ptlearn.course.session import arguments, progress, show

__all__ = ["arguments", "check", "progress", "show"]
