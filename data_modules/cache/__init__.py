"""What is computed once of every clip and kept in files."""
