"""Infrastructure is converged to what should be."""
