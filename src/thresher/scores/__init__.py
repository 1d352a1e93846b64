"""From the influence tensor to one score a training row."""
