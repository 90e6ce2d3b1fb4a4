"""The event loop's side of the application: batches, threads, waiting clients and background jobs."""
