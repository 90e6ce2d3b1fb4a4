"""This broker beside its peers: same tasks, same counts, same machine, one run. See docs/performance.md."""
