"""HTTP around the routes: requests, their parameters and bodies, JSON responses, problems and limits."""
