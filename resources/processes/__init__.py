"""Detached processes of this machine: started, recorded, supervised, ended."""
