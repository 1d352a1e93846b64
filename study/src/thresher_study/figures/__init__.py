"""The figures of SPEC 7, a file for each kind of numbers they are drawn from."""
