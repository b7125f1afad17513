"""Carries out proofs and judges their claims."""
