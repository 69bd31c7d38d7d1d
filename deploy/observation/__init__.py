"""What a model's tensors hold over real samples, gathered in one pass and constant memory."""
