"""Image sets and the transforms between a file and a tensor."""
