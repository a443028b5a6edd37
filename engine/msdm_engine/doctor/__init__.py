"""What this machine has to run bundles with, what does not fit together, and how to mend it."""
