"""Other programs' state, kept in a store: one module and one extra for each program.

An adapter uses the public API alone and stores through the families, so that the feed, the command line, retention and
copies see what it keeps. Importing one needs the other program's package; importing this package needs none.
"""
