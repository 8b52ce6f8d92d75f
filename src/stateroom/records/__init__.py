"""Records: a row, its index rows, its counters and its feed entry, always written in one batch.

A family says what its records are by a `Kind`; this room stores, finds, pages and audits them.
"""
