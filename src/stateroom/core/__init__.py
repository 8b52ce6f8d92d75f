"""A transaction over any engine, one definition of each operation, and the two faces it has.

Reads are remembered and writes are kept until commit. It knows no record and no family.
"""
