"""The flows: order, branching and approval."""
