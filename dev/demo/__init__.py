"""A shop whose tasks succeed, fail, are retried, wait and are delayed, for the web console: `make demo`."""
