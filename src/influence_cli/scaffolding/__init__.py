"""What authors start from: plugins that pass their own tests, written from templates."""
