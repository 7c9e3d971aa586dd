"""Worker processes, their progress, and files that appear whole."""
