"""State-machine snapshots, their histories and the rules that `define` sets."""
