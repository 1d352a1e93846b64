"""A finished audit before a person: rows to look at, why they are suspected, and what is decided about them."""
