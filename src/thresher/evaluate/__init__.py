"""Whether scores find what was planted."""
