"""Dagster's UI and daemon as one process of this machine, behind a console's tokens."""
