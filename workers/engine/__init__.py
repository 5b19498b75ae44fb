"""The compression engine: torch and format libraries only, usable as a library without the service."""
