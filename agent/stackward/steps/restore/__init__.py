"""Puts back what a backup or a snapshot holds, and keeps what that replaced."""
