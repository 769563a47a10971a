"""From a path to a batch of images."""
