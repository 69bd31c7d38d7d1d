"""Whether samples are fit to calibrate on and prepared as the model was trained."""
