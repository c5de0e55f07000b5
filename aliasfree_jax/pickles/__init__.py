"""Reads untrusted pickles as plain data. Nothing in them is ever executed."""
