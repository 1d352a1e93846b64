"""The stages of an audit: from a configuration to a run directory in which every row has its score."""
