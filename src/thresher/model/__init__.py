"""Loading, adapting, fine-tuning and reading the model, and naming its modules."""
