"""Grading: a submission merged into its release, run by nbval for the report, and points that cannot be forged."""
