"""Whether recent inputs of a model are like the rows it was trained on."""
