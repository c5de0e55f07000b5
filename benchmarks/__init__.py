"""Measurements behind the choices in the package."""
