"""The stages of a job: they translate between the contract and the engine. No Celery, no SQL."""
