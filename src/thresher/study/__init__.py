"""The paper's experiment: a grid of audits with planted errors, retraining, tables and figures."""
