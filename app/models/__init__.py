"""Models: networks that were uploaded."""
