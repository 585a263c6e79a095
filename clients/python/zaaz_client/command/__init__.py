"""The command `zaaz`: `main` puts together what a module each has for its group of commands.

`replay` and `statements` are rooms of their own, with their `command`.
"""
