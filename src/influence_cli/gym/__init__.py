"""One conversation at a time, step by step, as learners in the style of Gym want it."""
