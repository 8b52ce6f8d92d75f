"""The demo with nodes: a DAG over several processes, each with results of its own, one of which is killed."""
