"""Mamba2: the network, its state, its tokenizer and how text is generated. Knows torch and maths, nothing else of ours."""
