"""Methods that learn a hash of features and leave the network that computes them alone."""
