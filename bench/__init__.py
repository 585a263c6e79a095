"""Figures as ratios: the server against a baseline, on this machine, in the same run."""
