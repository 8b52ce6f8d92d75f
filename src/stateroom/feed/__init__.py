"""Every change in order: positions, decoded changes, reading and waiting, and the history of one record.

It reads what `records` wrote; consumers and their checkpoints are in `watch`.
"""
