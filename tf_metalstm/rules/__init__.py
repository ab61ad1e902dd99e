"""Update rules: how the parameters of a learner move."""
