"""What data says about a network's weights: second moments of what they multiply and of what depends on
them."""
