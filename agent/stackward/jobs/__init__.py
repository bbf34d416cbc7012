"""What can be done: one module per job, independent of each other."""
