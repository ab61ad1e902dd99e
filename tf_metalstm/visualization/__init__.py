"""To see what a trained rule does: gate trajectories, figures, TensorBoard."""
