"""Second instances of stacks, for staging and for drills: planned, run, waited for, asked."""
