"""Guarded executions with their own events."""
