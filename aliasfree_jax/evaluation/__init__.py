"""Measures how shifts of the image change the output of a network."""
