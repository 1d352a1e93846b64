"""Scores of training rows that need no influence: how they were learned, their neighbours, what a probe says."""
