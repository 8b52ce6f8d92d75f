"""`stateroom demo`: index Python's standard library as a workflow, killing the worker while it is at it.

One instance stands for the run, one execution for each file. A worker process holds the run's lease and indexes file by
file; the conductor watches the feed, kills the worker with SIGKILL at random moments and starts it again. What comes
out is compared with a plain count of the same files.
"""
