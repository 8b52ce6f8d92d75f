"""Values of any size: inline, in one object, or as a tree of objects that equal content shares.

It keeps bytes and counts references; what the bytes mean is the codec's and the records' business.
"""
