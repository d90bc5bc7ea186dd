"""Vision side: target encoders, the feature space that is generated, and image preprocessing."""
