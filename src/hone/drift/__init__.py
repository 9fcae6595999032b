"""Whether what a model is asked now is what it was trained for."""
