"""The description of the API: ``/openapi.json`` for programs and ``/docs`` for people."""
