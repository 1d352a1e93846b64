"""How the query gradients and the train gradients of one module meet, and the tensor that comes of it."""
