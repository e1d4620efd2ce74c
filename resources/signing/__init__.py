"""Signatures of artifacts: who signs, by which key, and whose signature is trusted."""
