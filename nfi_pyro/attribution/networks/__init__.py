"""What the networks look at: Grad-CAM on factors, integrated gradients, relevance."""
