"""Grading: a submission merged into its release, run for the report by nbval, and judged by points that cannot be forged."""
