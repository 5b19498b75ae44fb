"""Layer kinds: which forms each may take, what a form costs, and how it is put into a graph."""
