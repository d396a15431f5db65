"""Training of what sits on a frozen backbone: synthetic defects, cached features, losses, heads, checkpoints."""
