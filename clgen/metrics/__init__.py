"""What generated images are worth: distances, precision and recall, with extractors that need no network."""
