"""Hugging Face folders in: from a configuration and arrays to a network."""
