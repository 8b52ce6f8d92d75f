"""Durable execution state for Python."""
