"""Deciding which layer takes which form: pure Python, the same for the API's plans and for jobs."""
