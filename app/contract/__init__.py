"""What the API, the workers and the clients agree on. A leaf: pydantic only, every model frozen."""
