"""Data sets: arrays that were uploaded, to train and to test with."""
