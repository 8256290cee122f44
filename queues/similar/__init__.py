"""Recent answers to similar questions: when two questions are the same one, and where answers are kept."""
