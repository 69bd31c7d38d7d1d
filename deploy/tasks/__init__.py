"""Ways to judge what a model predicts, with labels and without; one file each."""
