"""Values of DAG functions: stored, streamed, computed once by `memo`."""
