"""Pages rendered on the server: what the API knows, for people."""
