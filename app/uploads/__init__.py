"""Uploads: what models and data sets have in common, from the body on the wire to the row."""
