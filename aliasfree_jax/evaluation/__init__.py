"""How well a classifier keeps its prediction when the image is shifted."""
