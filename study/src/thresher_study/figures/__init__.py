"""The figures of method.md 7, a file for each kind of numbers they are drawn from."""
