"""The control plan: what a plant says of a product, in a file that people edit and Flawscope checks."""
