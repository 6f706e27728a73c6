"""From a problem to a plan: arithmetic alone; imports no array library and no backend."""
