"""The bodies of requests and responses as pydantic models.

The OpenAPI document describes these models, requests are validated by them, and responses are made of them.
A class ``AdBody`` is the component ``Ad`` of the document.
"""
