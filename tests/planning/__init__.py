"""Plans, predicted costs and the machine profile."""
