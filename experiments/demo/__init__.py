"""A local page: a clip is dropped there, and what a trained model says of it is shown. Nothing is kept or sent."""
