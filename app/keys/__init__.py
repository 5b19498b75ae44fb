"""API keys: who may use the service. A key is a tenant."""
