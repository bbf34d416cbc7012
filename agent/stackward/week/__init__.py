"""What the host's week is made of: chores by name, chains of them, their times and retries, and what follows a run."""
