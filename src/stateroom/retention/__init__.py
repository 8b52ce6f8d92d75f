"""Delete expired records and feed entries in small batches, by policies that are data.

It never deletes what no policy names.
"""
