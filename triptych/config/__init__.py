"""What an experiment can be told, one file a family."""
