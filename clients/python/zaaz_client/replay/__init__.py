"""`zaaz replay`: real traffic as usage, and the proof that it was billed exactly once."""
