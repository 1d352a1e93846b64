"""Errors planted where they can be counted: exactly ``round(share n)`` rows, each unlike what it was."""
