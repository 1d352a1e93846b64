"""What is done with finished runs: cleaned files, rows explained, runs compared."""
