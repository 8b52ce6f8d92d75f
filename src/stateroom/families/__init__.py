"""The kinds of state: each folder or file is one family, its record and its operations.

What families share is in `records`; a family imports another only to say so in its operations.
"""
