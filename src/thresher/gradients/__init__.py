"""Per-row gradients of many modules from one forward and one backward pass a batch."""
