"""Recurrent layers: which of their weights are layers of their own, and what each may become."""
