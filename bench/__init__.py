"""Measures of the hot paths. They print figures and judge nothing."""
