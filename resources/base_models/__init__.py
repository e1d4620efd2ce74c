"""Where base models come from, and what is looked at before anything is trained on one."""
