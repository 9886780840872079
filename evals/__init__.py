"""Evaluation protocols, one file each, and the maths they share."""
