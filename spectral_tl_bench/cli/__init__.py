"""The command ``stbench``: one file per group of verbs."""
