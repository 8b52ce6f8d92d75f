"""Consistent cuts of a run that write what changed, and the collector that makes them."""
