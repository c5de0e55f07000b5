"""Pickles of others read as plain data: nothing in them is ever executed."""
