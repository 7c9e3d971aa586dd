"""What a trained model says of a clip: on a terminal, as JSON and CSV, and on a page."""
