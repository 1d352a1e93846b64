"""A study: the same audit over models, tasks and seeds, and what all of them say together."""
