"""Review: what a machine left open is decided by a person, written down, and given back to graphs and products.

The journal keeps every decision and undo; a desk is the queue and what a reviewer does with it; threads that asked are
answered exactly once; what is confirmed becomes references, defect examples and pages, and can be taken back.
"""
