"""The verbs of autotunectl, one file for each; its ``command`` is loaded when it is run."""
