"""The hands: decoding, seeing, remembering, naming."""
