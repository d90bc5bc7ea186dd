"""Generation heads: from the condition that the backbone gives to image features."""
