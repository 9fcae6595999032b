"""Order and branching: what happens after what."""
