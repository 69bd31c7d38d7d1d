"""What stands between a model and a target, said before anything is calibrated or built."""
