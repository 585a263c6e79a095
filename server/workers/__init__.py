"""Loops that tidy and tell. Nothing is right only because one of them has run."""
