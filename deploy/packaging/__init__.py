"""What a bundle needs around it to be served: the folders that production servers read."""
