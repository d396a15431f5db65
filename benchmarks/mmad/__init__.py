"""MMAD: multiple-choice questions about industrial pictures, asked and scored as its authors do, and strictly."""
