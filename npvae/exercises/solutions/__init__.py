"""The exercises with everything right; each imports earlier ones by their file names."""
