"""Tasks about understanding: a question about pictures, an answer in text."""
