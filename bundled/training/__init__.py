"""Training of the bundled model: sentences, tokenizer, training, evaluation and conversion."""
