"""Reading and writing of model and data files."""
