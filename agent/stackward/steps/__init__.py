"""What two or more jobs need."""
