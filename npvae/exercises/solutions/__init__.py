"""The exercises with everything right, as a learner's folder has them: each imports earlier ones by file name."""
