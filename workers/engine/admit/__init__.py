"""Checks on untrusted bytes before any parser sees them. Standard library only."""
